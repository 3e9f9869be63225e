"""Export a function to StableHLO by `jax.export`: flat {path: array} arguments, weights in a safetensors file beside the program."""
