"""Eight virtual devices of the CPU, so that shardings can be tested anywhere, and Keras on JAX; both read this when imported.

`JAX_PLATFORMS=cuda pytest tests/nn tests/draw` tests on a GPU instead: what needs several devices fails on one.

`pytest -m "not slow"` leaves out those of `slow.py`, which take most of the time; what is left has tests of every room.
`pytest --hypothesis-profile=long` is the long run: 20,000 examples for each test by hypothesis, 100,000 mutated files, 200
killed saves.

`PTREE_FAST_COMPILE=1` compiles with little optimisation: the same programs, in 0.7 of the time. `PTREE_TEST_CACHE=FOLDER` keeps
compiled programs there from one run to the next on this machine.
"""

import atexit
import gc
import os
import shutil
import tempfile

import browser
import published_models
import pytest
from hypothesis import settings
from slow import SLOW

# Without optimisation at all, programs of other forms for the same draws would differ in the last bit.
FAST_COMPILE = " --xla_backend_optimization_level=1 --xla_cpu_use_fusion_emitters=false"

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
if os.environ.get("PTREE_FAST_COMPILE") == "1":
    os.environ["XLA_FLAGS"] += FAST_COMPILE
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault(
    "JAX_DEFAULT_MATMUL_PRECISION", "highest"
)  # a GPU would round float32 to 10 bits, and differ in 1e-3
os.environ.setdefault("KERAS_BACKEND", "jax")


def _share_compiled_programs() -> None:
    """Let the workers and the processes that tests start take compiled programs from each other: 0.85 of the time.

    The folder is a new one for each run, as programs compiled on another machine may not run on this one, unless one is named.
    """
    folder = os.environ.get("PTREE_TEST_CACHE")
    if not folder:
        folder = tempfile.mkdtemp(prefix="ptree-tests-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"


if "PYTEST_XDIST_WORKER" not in os.environ:  # the process that starts the workers
    _share_compiled_programs()

settings.register_profile("short", deadline=None)  # a busy machine may take any time for an example
settings.register_profile("long", max_examples=20_000, deadline=None)
settings.load_profile("short")


# tests in a browser; where it must be there, as in CI, they fail without one
collect_ignore = [] if browser.IS_THERE or browser.MUST_BE_THERE else ["look/test_report_page.py"]
# tests beside published models; where they must be there, as in CI, they fail without one
if not (published_models.ARE_THERE or published_models.MUST_BE_THERE):
    collect_ignore.append("convert/real_models")
collect_ignore_glob = ["*/samples/*.py"]  # run with frameworks that are not installed here, to write the samples
collect_ignore_glob += [
    "cookbook/*.py"
]  # functions whose lines the cookbook counts, for tests/package/test_counterparts.py


def pytest_configure(config):
    # old versions of matplotlib use names that pyparsing has deprecated since
    config.addinivalue_line("filterwarnings", "ignore:'[a-zA-Z]+' (argument is )?deprecated:DeprecationWarning")


def pytest_collection_modifyitems(items):
    for item in items:
        if isinstance(item, pytest.Function) and item.originalname in SLOW:
            item.add_marker(pytest.mark.slow)


def pytest_collection_finish(session):
    # Modules and tests stay to the end, and tracing makes many objects that refer to each other: 0.9 of the time.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000)


@pytest.fixture
def long(pytestconfig):
    """Whether this is the long run."""
    return pytestconfig.getoption("hypothesis_profile") == "long"
