"""Eight virtual devices, so that shardings can be tested on a CPU; JAX reads this when it first computes."""

import os

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
