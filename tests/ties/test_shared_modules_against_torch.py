"""A tied language model beside PyTorch's shared modules: the same losses, gradients and steps."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ptree as pt
from ptree import initializers as I

torch = pytest.importorskip("torch")


def attend_once(params, block, x):
    """One layer of a transformer without its norms, of plain JAX: what matters is that it is used again."""
    q, v = (x @ params[block][name]["kernel"] + params[block][name]["bias"] for name in ("q", "v"))
    k = x @ params[block]["k"]["kernel"]  # whose bias has no gradient but rounding, which AdamW would make large
    weights = jax.nn.softmax(q @ jnp.swapaxes(k, -1, -2) / np.sqrt(x.shape[-1]), -1)
    return x + jnp.tanh(weights @ v)


def language_model(params, ids):
    x = params["embed"]["table"][ids]
    for block in ("block_0", "block_1", "block_2"):
        x = attend_once(params, block, x)
    return x @ params["head"]["kernel"] + params["head"]["bias"]


class Block(torch.nn.Module):
    def __init__(self, d):
        super().__init__()
        self.q, self.k, self.v = torch.nn.Linear(d, d), torch.nn.Linear(d, d, bias=False), torch.nn.Linear(d, d)

    def forward(self, x):
        weights = torch.softmax(self.q(x) @ self.k(x).transpose(-1, -2) / np.sqrt(x.shape[-1]), -1)
        return x + torch.tanh(weights @ self.v(x))


class LanguageModel(torch.nn.Module):
    """PyTorch's way: one module at three places, and the output's weight is the embedding's."""

    def __init__(self, vocabulary, d):
        super().__init__()
        self.embed = torch.nn.Embedding(vocabulary, d)
        self.block_0 = self.block_1 = self.block_2 = Block(d)
        self.head = torch.nn.Linear(d, vocabulary)
        self.head.weight = self.embed.weight

    def forward(self, ids):
        return self.head(self.block_2(self.block_1(self.block_0(self.embed(ids)))))


def test_a_tied_language_model_trains_as_pytorchs_shared_modules_do():
    vocabulary, d = 11, 6
    draw = {"kernel": pt.Param((d, d), init=I.normal(0.3)), "bias": pt.Param((d,), init=I.normal(0.1))}
    spec = pt.Tree({
        "embed": {"table": pt.Param((vocabulary, d), init=I.normal(0.5))},
        **{f"block_{at}": {"q": draw, "k": {"kernel": draw["kernel"]}, "v": draw} for at in range(3)},
        "head": {"kernel": pt.Param((d, vocabulary)), "bias": pt.Param((vocabulary,), init=I.zeros)},
    })  # fmt: skip
    spec = pt.tie(spec, {"block_*": "block_0", "head/kernel": pt.transposed("embed/table")})
    params = pt.init(spec, jax.random.key(0))
    peer = LanguageModel(vocabulary, d)
    assert len(list(peer.parameters())) == len(jax.tree.leaves(params)) == 7
    torch_names = {"embed/table": "embed.weight", "head/bias": "head.bias"} | {
        f"block_0/{name}/{ours}": f"block_0.{name}.{theirs}"
        for name in "qkv" for ours, theirs in (("kernel", "weight"), ("bias", "bias"))
    }  # fmt: skip

    def theirs(path, values):
        value = values[torch_names[path]].detach().numpy()
        return value.T if path.endswith("kernel") else value

    with torch.no_grad():
        state = dict(peer.named_parameters())
        for path, leaf in pt.items(params):
            state[torch_names[path]].copy_(torch.tensor(np.array(leaf.T if path.endswith("kernel") else leaf)))

    ids = np.random.default_rng(0).integers(vocabulary, size=(4, 7))
    targets = np.roll(ids, -1, 1)

    def loss(p):
        return optax.softmax_cross_entropy_with_integer_labels(language_model(p, ids), targets).mean()

    optimiser, peers = optax.adamw(1e-2, weight_decay=0.1), torch.optim.AdamW(peer.parameters(), 1e-2, weight_decay=0.1)
    opt_state = optimiser.init(params)
    for at in range(4):
        value, grads = jax.jit(jax.value_and_grad(loss))(params)
        peers.zero_grad()
        peer_loss = torch.nn.functional.cross_entropy(peer(torch.tensor(ids)).transpose(1, 2), torch.tensor(targets))
        peer_loss.backward()
        assert float(value) == pytest.approx(float(peer_loss.detach()), abs=1e-5)
        gradients_of = {name: p.grad for name, p in peer.named_parameters()}
        for path, grad in pt.items(grads):
            np.testing.assert_allclose(grad, theirs(path, gradients_of), atol=1e-5, err_msg=f"step {at}, {path}")
        if at == 3:
            break
        updates, opt_state = optimiser.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
        peers.step()
        for path, leaf in pt.items(params):
            np.testing.assert_allclose(
                leaf, theirs(path, dict(peer.named_parameters())), atol=1e-5, err_msg=f"step {at}, {path}"
            )
    assert params["block_2/q/kernel"] is params["block_0/q/kernel"]
    np.testing.assert_array_equal(params["head/kernel"], params["embed/table"].T)
