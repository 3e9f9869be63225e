"""The chapter's numbers against PyTorch's own: forward values, every gradient, and steps of AdamW."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ptree as pt
from ptree import initializers as I
from ptree import nn

torch = pytest.importorskip("torch")

X = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")


def copied(params):
    """Our leaves as torch tensors by path, kernels (out, in) as torch wants them."""
    return {path: torch.tensor(np.array(leaf.T if leaf.ndim == 2 else leaf)) for path, leaf in pt.items(params)}


def load(module, state):
    """Into a torch module whose names are 0.weight, 0.bias, ..."""
    names = {"kernel": "weight", "bias": "bias"}
    state = {
        path.rpartition("/")[0].replace("/", ".") + "." + names[path.rpartition("/")[2]]: t for path, t in state.items()
    }
    assert not module.load_state_dict(state, strict=False).unexpected_keys
    return module


def gradients(module):
    """Torch's gradients under our paths and in our layout."""
    names = {"weight": "kernel", "bias": "bias"}
    return {
        "/".join(name.split(".")[:-1]) + "/" + names[name.split(".")[-1]]: value.grad.numpy().T
        for name, value in module.named_parameters()
    }


@pytest.mark.parametrize("tied", [False, True], ids=["apart", "tied"])
def test_the_mlp_and_all_its_gradients_agree(tied):
    first, second = nn.Dense(8), nn.Dense(8)
    net = nn.Sequential(
        nn.Dense(8), jax.nn.relu, first, jax.nn.relu, first if tied else second, jax.nn.relu, nn.Dense(1)
    )
    params = net.init(jax.random.key(1), X, {"**/kernel": I.normal(0.5), "**/bias": I.normal(0.1)})
    one = torch.nn.Linear(8, 8)
    peer = torch.nn.Sequential(
        torch.nn.Linear(4, 8), torch.nn.ReLU(), one, torch.nn.ReLU(), one if tied else torch.nn.Linear(8, 8),
        torch.nn.ReLU(), torch.nn.Linear(8, 1),
    )  # fmt: skip
    load(peer, copied(params))
    ours = net(params, X)
    theirs = peer(torch.tensor(X))
    np.testing.assert_allclose(ours, theirs.detach().numpy(), atol=1e-5)
    (theirs**2).sum().backward()
    grads = jax.jit(jax.grad(lambda p: (net(p, X) ** 2).sum()))(params)
    expected = gradients(peer)
    assert set(pt.paths(grads)) == set(expected)
    for path, grad in pt.items(grads):
        np.testing.assert_allclose(grad, expected[path], atol=1e-5, rtol=1e-5, err_msg=path)


def test_the_nested_blocks_agree():
    def block1():
        return nn.Sequential(nn.Dense(8), jax.nn.relu, nn.Dense(4), jax.nn.relu)

    net = nn.Sequential(nn.Sequential({f"block {i}": block1() for i in range(4)}), nn.Dense(1))
    params = net.init(jax.random.key(0), X)

    def peer1():
        return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 4), torch.nn.ReLU())

    inner = torch.nn.Sequential()
    for i in range(4):
        inner.add_module(f"block {i}", peer1())
    peer = load(torch.nn.Sequential(inner, torch.nn.Linear(4, 1)), copied(params))
    np.testing.assert_allclose(net(params, X), peer(torch.tensor(X)).detach().numpy(), atol=1e-5)
    assert sum(p.numel() for p in peer.parameters()) == pt.summary(params).count == 309


def test_a_tied_model_takes_the_same_three_adamw_steps():
    shared = nn.Dense(4)
    net = nn.Sequential(shared, jnp.tanh, shared, jnp.tanh, nn.Dense(1))
    params = net.init(jax.random.key(2), X)
    one = torch.nn.Linear(4, 4)
    peer = load(torch.nn.Sequential(one, torch.nn.Tanh(), one, torch.nn.Tanh(), torch.nn.Linear(4, 1)), copied(params))
    theirs = torch.optim.AdamW(peer.parameters(), lr=0.1, weight_decay=0.01)
    ours = optax.adamw(0.1, weight_decay=0.01)
    state = ours.init(params)
    for _ in range(3):
        theirs.zero_grad()
        (peer(torch.tensor(X)) ** 2).mean().backward()
        theirs.step()
        updates, state = ours.update(jax.grad(lambda p: (net(p, X) ** 2).mean())(params), state, params)
        params = optax.apply_updates(params, updates)
    for path, tensor in copied(params).items():
        name = path.replace("kernel", "weight").replace("/", ".")
        np.testing.assert_allclose(tensor, peer.state_dict()[name], atol=1e-5, err_msg=path)


def test_embedding_and_layer_norm_agree():
    ids = np.array([[1, 2], [0, 4]])
    net = nn.Sequential(nn.Embedding(5, 6), nn.LayerNorm())
    params = net.init(jax.random.key(0), ids, {"1/*": I.normal(1.0)})
    embed, norm = torch.nn.Embedding(5, 6), torch.nn.LayerNorm(6)
    embed.load_state_dict({"weight": torch.tensor(np.array(params["0/table"]))})
    norm.load_state_dict(
        {"weight": torch.tensor(np.array(params["1/scale"])), "bias": torch.tensor(np.array(params["1/bias"]))}
    )
    theirs = norm(embed(torch.tensor(ids)))
    np.testing.assert_allclose(net(params, ids), theirs.detach().numpy(), atol=1e-5)
    (theirs**3).sum().backward()
    grads = jax.grad(lambda p: (net(p, ids) ** 3).sum())(params)
    np.testing.assert_allclose(grads["0/table"], embed.weight.grad, atol=1e-3, rtol=1e-4)
    np.testing.assert_allclose(grads["1/scale"], norm.weight.grad, atol=1e-3, rtol=1e-4)
