"""Groups, clipping and rates by depth beside PyTorch's parameter groups."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ptree as pt
from ptree import train

torch = pytest.importorskip("torch")

LAYERS = 4


def model():
    draw = np.random.default_rng(0)
    numbers = lambda *shape: draw.normal(size=shape).astype("f")
    block = lambda: {"kernel": 0.5 * numbers(5, 5), "bias": numbers(5)}
    return pt.Tree({"embed": numbers(3, 5), "blocks": [block() for _ in range(LAYERS)], "head": numbers(5, 2)})


X = np.random.default_rng(1).normal(size=(6, 3)).astype("f")


def loss(params):
    x, _ = pt.stacks.scan(
        lambda x, layer: (jnp.tanh(x @ layer["kernel"] + layer["bias"]), None), X @ params["embed"], params["blocks"]
    )
    return ((x @ params["head"]) ** 2).mean()


def of_pytorch(params, factor, steps=3):
    """The parameters after AdamW of PyTorch with a group, and so a rate, for each leaf."""
    leaves = {path: torch.tensor(np.asarray(leaf), requires_grad=True) for path, leaf in pt.items(params)}
    optimiser = torch.optim.AdamW(
        [{"params": [leaf], "lr": 1e-2 * factor(path)} for path, leaf in leaves.items()], weight_decay=0.1
    )
    for _ in range(steps):
        optimiser.zero_grad()
        x = torch.tensor(X) @ leaves["embed"]
        for at in range(LAYERS):
            x = (x @ leaves[f"blocks/{at}/kernel"] + leaves[f"blocks/{at}/bias"]).tanh()
        ((x @ leaves["head"]) ** 2).mean().backward()
        optimiser.step()
    return {path: leaf.detach().numpy() for path, leaf in leaves.items()}


@pytest.mark.parametrize("stacked", [True, False])
def test_rates_by_depth_are_those_of_pytorchs_groups_stacked_or_not(stacked):
    apart = model()
    params = pt.stacks.stack(apart, "blocks") if stacked else apart
    rules = train.depth_factors(params, 0.6, ["embed", "blocks/*", "head"])
    optimiser = train.groups({"**": optax.chain(optax.adamw(1e-2, weight_decay=0.1), train.scaled(rules))})
    state = optimiser.init(params)
    for _ in range(3):
        updates, state = optimiser.update(jax.grad(loss)(params), state, params)
        params = optax.apply_updates(params, updates)

    def factor(path):
        depth = {"embed": 0, "head": LAYERS + 1}.get(path)
        depth = 1 + int(path.split("/")[1]) if depth is None else depth
        return 0.6 ** (LAYERS + 1 - depth)

    for path, expected in of_pytorch(apart, factor).items():
        np.testing.assert_allclose(pt.get(params, path), expected, rtol=1e-4, atol=2e-6, err_msg=path)


def test_three_steps_are_those_of_pytorchs_parameter_groups():
    draw = np.random.default_rng(3)
    kernel, bias, x = (draw.normal(size=shape).astype("f") for shape in [(4, 3), (3,), (8, 4)])
    k, b = (torch.tensor(value, requires_grad=True) for value in (kernel, bias))
    optimiser = torch.optim.AdamW(
        [{"params": [k]}, {"params": [b], "lr": 3e-2, "weight_decay": 0.0}], lr=1e-2, weight_decay=0.1
    )
    params = {"kernel": jnp.asarray(kernel), "bias": jnp.asarray(bias)}
    ours = train.groups(
        {"bias": optax.adamw(3e-2, weight_decay=0.0), "**": optax.adamw(1e-2, weight_decay=0.1)}, clip=0.7
    )
    state = ours.init(params)
    for _ in range(3):
        optimiser.zero_grad()
        ((torch.tensor(x) @ k + b).tanh() ** 2).mean().backward()
        torch.nn.utils.clip_grad_norm_([k, b], 0.7)
        optimiser.step()
        grads = jax.grad(lambda p: (jnp.tanh(x @ p["kernel"] + p["bias"]) ** 2).mean())(params)
        updates, state = ours.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(params["kernel"], k.detach(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(params["bias"], b.detach(), rtol=1e-5, atol=1e-6)
