"""Eight virtual devices of the CPU, so that shardings can be tested anywhere, and Keras on JAX; both read this when imported.

`JAX_PLATFORMS=cuda pytest tests/nn tests/draw` tests on a GPU instead: what needs several devices fails on one.

`pytest -m "not slow"` leaves out those of `slow.py`, which take most of the time; what is left has tests of every room.
`pytest --hypothesis-profile=long` is the long run: 20,000 examples for each test by hypothesis, 100,000 mutated files, 200
killed saves.
"""

import os

import browser
import pytest
from hypothesis import settings
from slow import SLOW

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault(
    "JAX_DEFAULT_MATMUL_PRECISION", "highest"
)  # a GPU would round float32 to 10 bits, and differ in 1e-3
os.environ.setdefault("KERAS_BACKEND", "jax")

settings.register_profile("short", deadline=None)  # a busy machine may take any time for an example
settings.register_profile("long", max_examples=20_000, deadline=None)
settings.load_profile("short")


# tests in a browser; where it must be there, as in CI, they fail without one
collect_ignore = [] if browser.IS_THERE or browser.MUST_BE_THERE else ["look/test_report_page.py"]
collect_ignore_glob = ["*/samples/*.py"]  # run with frameworks that are not installed here, to write the samples


def pytest_configure(config):
    # old versions of matplotlib use names that pyparsing has deprecated since
    config.addinivalue_line("filterwarnings", "ignore:'[a-zA-Z]+' (argument is )?deprecated:DeprecationWarning")


def pytest_collection_modifyitems(items):
    for item in items:
        if isinstance(item, pytest.Function) and item.originalname in SLOW:
            item.add_marker(pytest.mark.slow)


@pytest.fixture
def long(pytestconfig):
    """Whether this is the long run."""
    return pytestconfig.getoption("hypothesis_profile") == "long"
