"""The checklist of what makes a converted model differ besides its weights: epsilons, padding, activations, masks, precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from .calls import is_training, torch_module

CHECKLIST: tuple[str, ...] = (
    "epsilon: LayerNorm 1e-5 in PyTorch, Haiku, Equinox, Gluon, 1e-6 in Flax, 1e-3 in Keras, 1e-12 in BERT; BatchNorm 1e-5"
    " in PyTorch, 1e-3 in Keras; GroupNorm 1e-6 in Flax, 1e-3 in Keras",
    "train or eval: dropout is off and BatchNorm uses its running statistics (`model.eval()`, training=False)",
    "momentum: PyTorch's 0.1 is 0.9 in Flax and Keras; it acts in training alone",
    "padding: PyTorch's is the same on both sides; 'SAME' with a stride pads more at the end; asymmetric"
    " padding such as (31, 32) is given for each side",
    "gelu: exact (erf) in PyTorch and Keras, the tanh form in jax.nn.gelu, Flax and GPT-2",
    "attention: scores are multiplied by 1/sqrt(size of a head); a mask is added to the scores or"
    " selects among them, and True keeps a position in some libraries and masks it in others",
    "embedding: multiplied by sqrt(d) in some transformers; norms scale by `scale` or by 1 + scale",
    "channel order: NCHW in PyTorch, NHWC in JAX and Keras, also before a flatten",
    "recurrent layers: order of gates, one bias or two, the forget gate's + 1, GRU's reset before or after the product",
    "square kernels: a missing transpose does not change the shape",
)


def modes_of_modules(f_source: Callable[..., Any], f_ours: Callable[..., Any]) -> tuple[str, ...]:
    """A sentence for each function that is a module of PyTorch in training mode."""
    found: list[str] = []
    for side, function in (("source", f_source), ("ours", f_ours)):
        module = torch_module(function)
        if module is not None and is_training(module):
            found.append(f"the {side} is a module of PyTorch in training mode: call .eval() on it")
    return tuple(found)


def precision_of_products() -> str:
    """The precision that JAX multiplies matrices with in this process."""
    precision = jax.config.jax_default_matmul_precision or "default"  # pyright: ignore[reportAttributeAccessIssue]
    return (
        f"precision of products: jax_default_matmul_precision is {precision!r} on {jax.default_backend()};"
        " GPUs and TPUs round float32 to TF32 or bfloat16 by default, 'highest' does not"
    )
