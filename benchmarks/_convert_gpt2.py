"""GPT-2 small by its published names into the model of examples/07_gpt.py, as layers and as a stack, and back, beside the same by hand."""

import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import ptree as pt

HEADS, LAYERS = 12, 12
Arrays = Mapping[str, np.ndarray]


def example() -> Any:
    path = Path(__file__).parent.parent / "examples" / "07_gpt.py"
    spec = importlib.util.spec_from_file_location("example_07_gpt", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


def published(gpt: Any, model: Any) -> dict[str, np.ndarray]:
    """The 148 arrays of GPT-2 small with numbers that are drawn: 498 MB."""
    params = model.init(jax.random.key(0))
    return {name: np.array(array) for name, array in gpt.published_names().inverse.apply(params).items()}


def kernels_by_hand(arrays: Arrays, layer: str) -> dict[str, Any]:
    """The leaves of a block from the arrays of a layer, by NumPy."""
    width = len(arrays[f"{layer}.ln_1.weight"])
    q, k, v = np.split(arrays[f"{layer}.attn.c_attn.weight"].reshape(width, 3 * HEADS, -1), 3, 1)
    q_bias, k_bias, v_bias = np.split(arrays[f"{layer}.attn.c_attn.bias"].reshape(3 * HEADS, -1), 3)
    o = arrays[f"{layer}.attn.c_proj.weight"].reshape(HEADS, -1, width)
    return {
        "ln_1": {"scale": arrays[f"{layer}.ln_1.weight"], "bias": arrays[f"{layer}.ln_1.bias"]},
        "attn": {
            "q": {"kernel": q, "bias": q_bias},
            "k": {"kernel": k, "bias": k_bias},
            "v": {"kernel": v, "bias": v_bias},
            "o": {"kernel": o, "bias": arrays[f"{layer}.attn.c_proj.bias"]},
        },
        "ln_2": {"scale": arrays[f"{layer}.ln_2.weight"], "bias": arrays[f"{layer}.ln_2.bias"]},
        "up": {"kernel": arrays[f"{layer}.mlp.c_fc.weight"], "bias": arrays[f"{layer}.mlp.c_fc.bias"]},
        "down": {"kernel": arrays[f"{layer}.mlp.c_proj.weight"], "bias": arrays[f"{layer}.mlp.c_proj.bias"]},
    }


def by_hand(arrays: Arrays, stacked: bool) -> dict[str, Any]:
    blocks: Any = [kernels_by_hand(arrays, f"h.{at}") for at in range(LAYERS)]
    if stacked:
        blocks = jax.tree.map(lambda *layers: np.stack(layers), *blocks)
    tree = {
        "wte": arrays["wte.weight"],
        "wpe": arrays["wpe.weight"],
        "blocks": blocks,
        "ln_f": {"scale": arrays["ln_f.weight"], "bias": arrays["ln_f.bias"]},
    }
    return jax.tree.map(jnp.asarray, tree)


def ways(shrink: int = 1) -> dict[str, Callable[[], Any]]:
    """By name: plain copies, and the conversion by a table and by hand, which give equal arrays."""
    gpt = example()
    sizes = {"vocabulary": 50257 // shrink, "context": 1024 // shrink, "width": 12 * max(1, 64 // shrink)}
    apart, stacked = gpt.GPT(**sizes, stacked=False), gpt.GPT(**sizes, stacked=True)
    arrays, table = published(gpt, apart), gpt.published_names()
    specs = {"layers": apart.spec(), "a stack": stacked.spec()}
    found: dict[str, Callable[[], Any]] = {
        "plain copies": lambda: {name: jnp.array(array) for name, array in arrays.items()}
    }
    for form, spec in specs.items():
        is_stack = form == "a stack"
        found[f"into {form}, by hand"] = lambda is_stack=is_stack: by_hand(arrays, is_stack)
        found[f"into {form}, by the table"] = lambda spec=spec: table.apply(arrays, like=spec)
        check_equal(by_hand(arrays, is_stack), table.apply(arrays, like=spec), "blocks/:/" if is_stack else "blocks/")
    params = {form: table.apply(arrays, like=spec) for form, spec in specs.items()}
    for form, tree in params.items():
        found[f"back from {form}, by the table"] = lambda tree=tree: table.inverse.apply(tree)
        back = table.inverse.apply(tree)
        assert all(np.array_equal(back[name], array) for name, array in arrays.items())
    return found


def check_equal(hand: dict[str, Any], ours: Any, blocks: str) -> None:
    """Compare leaf by leaf; the paths of ours begin with `blocks` where those by hand begin with `blocks/`."""
    for path, leaf in pt.items(hand):
        assert np.array_equal(leaf, ours[path.replace("blocks/", blocks)]), path
