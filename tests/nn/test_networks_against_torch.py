"""The chapter's numbers against PyTorch's own: forward values, every gradient, and the initialisers."""

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


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (I.normal(0.01), lambda w: torch.nn.init.normal_(w, 0, 0.01)),
        (I.uniform(-0.2, 0.1), lambda w: torch.nn.init.uniform_(w, -0.2, 0.1)),
        (I.truncated_normal(0.5), lambda w: torch.nn.init.trunc_normal_(w, 0, 0.5, -1, 1)),
        (I.xavier_uniform(), torch.nn.init.xavier_uniform_),
        (I.xavier_normal(), torch.nn.init.xavier_normal_),
        (I.kaiming_uniform(), lambda w: torch.nn.init.kaiming_uniform_(w, nonlinearity="relu")),
        (I.kaiming_normal(), lambda w: torch.nn.init.kaiming_normal_(w, nonlinearity="relu")),
        (I.orthogonal(), torch.nn.init.orthogonal_),
        (I.constant(42), lambda w: torch.nn.init.constant_(w, 42)),
        (I.zeros, torch.nn.init.zeros_),
        (I.ones, torch.nn.init.ones_),
        (I.identity(), torch.nn.init.eye_),
    ],
    ids=lambda value: repr(value) if isinstance(value, I.Recipe) else "",
)
@pytest.mark.parametrize("shape", [(400, 600), (600, 250)], ids=str)
def test_initialisers_have_the_mean_spread_and_range_of_torchs(ours, theirs, shape):
    torch.manual_seed(0)
    w = np.asarray(ours(jax.random.key(0), shape))
    peer = theirs(torch.empty(shape[::-1])).numpy()  # torch's kernels are (out, in)
    assert w.std() == pytest.approx(peer.std(), rel=0.02, abs=1e-9)
    assert w.mean() == pytest.approx(peer.mean(), abs=8 * peer.std() / np.sqrt(peer.size) + 1e-9)
    cut_at_two = any(name in repr(ours) for name in ("xavier_normal", "kaiming_normal", "orthogonal"))
    if not cut_at_two and "normal(" not in repr(ours).replace("truncated_normal(", ""):
        assert w.min() == pytest.approx(peer.min(), rel=0.01, abs=1e-3)
        assert w.max() == pytest.approx(peer.max(), rel=0.01, abs=1e-3)


def torch_draw(make, *axes):
    torch.manual_seed(0)
    with torch.no_grad():
        return make().detach().numpy().transpose(axes) if axes else make().detach().numpy()


def filled(function, *shape):
    return lambda: function(torch.empty(*shape))


@pytest.mark.parametrize(
    ("init", "theirs"),
    [
        (I.torch_linear, torch_draw(lambda: torch.nn.Linear(300, 200).weight, 1, 0)),
        (I.torch_conv, torch_draw(lambda: torch.nn.Conv2d(32, 128, 3).weight, 2, 3, 1, 0)),
        (I.torch_conv, torch_draw(lambda: torch.nn.Conv2d(64, 256, 3, groups=4).weight, 2, 3, 1, 0)),
        (I.torch_conv(in_axis=-1, out_axis=-2), torch_draw(lambda: torch.nn.ConvTranspose2d(64, 96, 3).weight, 2, 3, 0, 1)),
        (I.torch_embedding, torch_draw(lambda: torch.nn.Embedding(1000, 64).weight)),
        (I.xavier_uniform(gain=2.0), torch_draw(filled(lambda w: torch.nn.init.xavier_uniform_(w, 2.0), 200, 300), 1, 0)),
        (I.kaiming_uniform(0.3, "fan_out"), torch_draw(filled(lambda w: torch.nn.init.kaiming_uniform_(w, 0.3, "fan_out"), 200, 300), 1, 0)),
        (I.variance_scaling(2.0, "fan_in", "normal"), torch_draw(filled(torch.nn.init.kaiming_normal_, 200, 300), 1, 0)),
        (I.truncated_normal(0.5), torch_draw(filled(lambda w: torch.nn.init.trunc_normal_(w, 0, 0.5, -1, 1), 200, 300), 1, 0)),
        (I.sparse(0.3, 0.1), torch_draw(filled(lambda w: torch.nn.init.sparse_(w, 0.3, 0.1), 200, 300), 1, 0)),
    ],
    ids=repr,
)  # fmt: skip
def test_draws_have_the_distribution_of_pytorchs_own(init, theirs):
    from scipy.stats import ks_2samp

    ours = np.asarray(pt.init({"w": pt.Param(theirs.shape, init=init)}, jax.random.key(2))["w"])
    assert ks_2samp(ours.ravel(), theirs.ravel()).pvalue > 1e-3
    assert ks_2samp(ours.ravel() * 1.05, theirs.ravel()).pvalue < 1e-3 or "sparse" in repr(init)  # it would notice
    assert ours.std() == pytest.approx(theirs.std(), rel=0.02)


def test_structured_initialisers_are_pytorchs():
    for groups in (1, 2):
        theirs = torch_draw(filled(lambda w, g=groups: torch.nn.init.dirac_(w, g), 6, 4, 3, 5), 2, 3, 1, 0)
        np.testing.assert_array_equal(I.dirac(groups)(None, theirs.shape), theirs)
    zeros = (torch_draw(filled(lambda w: torch.nn.init.sparse_(w, 0.3), 10, 7), 1, 0) == 0).sum(1)
    assert ((np.asarray(I.sparse(0.3)(jax.random.key(0), (7, 10))) == 0).sum(1) == zeros).all()
    for name in ("linear", "sigmoid", "tanh", "relu", "leaky_relu", "selu"):
        assert I.gain(name) == pytest.approx(torch.nn.init.calculate_gain(name))


# ------------------------------------------------------------------- shared modules, trained


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
