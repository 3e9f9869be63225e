"""Eight virtual devices, so that shardings can be tested on a CPU, and Keras on JAX; both read this when imported."""

import os

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
os.environ.setdefault("KERAS_BACKEND", "jax")
