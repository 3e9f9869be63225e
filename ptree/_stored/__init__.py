"""A tree as bytes: what a safetensors file, its header and an index of shards state about its leaves. Nothing here imports JAX,
so that a file can be looked at at once."""
