"""Models in classes of one's own, with several inputs or with functions between layers, beside PyTorch modules: equal outputs."""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from layouts import draws

import ptree as pt
from ptree import convert, nn

torch = pytest.importorskip("torch")
from beside_torch import check, one, refused  # noqa: E402 - needs PyTorch

T = torch.nn
F = torch.nn.functional

X = draws(2, 4, 4, 4)
ORDERED = "linear >> flatten_order((4, 4, 4), (1, 2, 0))"


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def flat(x):
    return jax.ShapeDtypeStruct((x.shape[0], int(np.prod(x.shape[1:]))), x.dtype)


@dataclass(frozen=True)
class CNN(nn.Layer):
    conv: nn.Layer = field(default_factory=one)
    norm: nn.Layer = field(default_factory=nn.BatchNorm)
    hidden: nn.Layer = field(default_factory=lambda: nn.Dense(5))
    dense: nn.Layer = field(default_factory=lambda: nn.Dense(3))

    def declare(self, x):
        y = jax.ShapeDtypeStruct((2, 64), "f4")
        return {
            "conv": self.conv.spec(x), "norm": self.norm.spec(y), "hidden": self.hidden.spec(y),
            "dense": self.dense.spec(jax.ShapeDtypeStruct((2, 5), "f4")),
        }  # fmt: skip

    def apply(self, params, x):
        x = jax.nn.relu(self.conv(params["conv"], x))
        x = self.norm(params["norm"], x.reshape(len(x), -1))
        x = jnp.tanh(self.hidden(params["hidden"], x))
        return self.dense(params["dense"], x)


def norm_1d(size):
    norm = T.BatchNorm1d(size)
    for values in (norm.weight, norm.bias, norm.running_mean):
        T.init.normal_(values)
    return norm


def norm_2d(size):
    norm = T.BatchNorm2d(size)
    for values in (norm.weight, norm.bias, norm.running_mean):
        T.init.normal_(values)
    return norm


def cnn_modules(start=""):
    by_path = {"conv": T.Conv2d(4, 4, 1), "norm": norm_1d(64), "hidden": T.Linear(64, 5), "dense": T.Linear(5, 3)}
    return {start + path: module for path, module in by_path.items()}


def cnn_there(m, x, start=""):
    y = m(f"{start}conv")(x).relu().flatten(1)
    return m(f"{start}dense")(m(f"{start}hidden")(m(f"{start}norm")(y)).tanh())


def test_a_flatten_inside_a_class_of_ones_own():
    table = check(CNN(), cnn_modules(), cnn_there, X)
    assert f"'hidden.weight' -> 'hidden/kernel', {ORDERED}" in list(table)
    assert "'dense.weight' -> 'dense/kernel', linear" in list(table)


def test_a_class_of_ones_own_in_containers():
    net = nn.Sequential(jnp.positive, nn.Sequential({"inner": CNN()}), nn.Dense(2))
    by_path = cnn_modules("1/inner/") | {"2": T.Linear(3, 2)}
    check(net, by_path, lambda m, x: m("2")(cnn_there(m, x, "1/inner/")), X)


@dataclass(frozen=True)
class Mixer(nn.Layer):
    """A block that flattens inside and keeps the shape of an image."""

    conv: nn.Layer = field(default_factory=one)
    dense: nn.Layer = field(default_factory=lambda: nn.Dense(16))

    def declare(self, x):
        return {"conv": self.conv.spec(x), "dense": self.dense.spec(flat(x))}

    def apply(self, params, x):
        y = self.conv(params["conv"], x).reshape(x.shape[0], -1)
        return x * jax.nn.sigmoid(self.dense(params["dense"], y)).mean(-1)[:, None, None, None]


@pytest.mark.parametrize("scan", [True, False])
def test_a_class_of_ones_own_in_a_repeat(scan):
    net = nn.Sequential(
        nn.Repeat(nn.Sequential(Mixer(), jnp.tanh), 3, scan=scan, remat=scan), nn.Flatten(), nn.Dense(3)
    )
    by_path = {"2": T.Linear(64, 3)}
    for at in range(3):
        by_path |= {f"0/{at}/0/conv": T.Conv2d(4, 4, 1), f"0/{at}/0/dense": T.Linear(64, 16)}

    def forward(m, x):
        for at in range(3):
            y = m(f"0/{at}/0/conv")(x).flatten(1)
            x = (x * m(f"0/{at}/0/dense")(y).sigmoid().mean(-1)[:, None, None, None]).tanh()
        return m("2")(x.flatten(1))

    # the input itself is flattened, and the convolutions do not say that its channels are first
    refused(net, "'2', Dense in PyTorch: .*the input f32.* may have its channels first or last there", X)
    net = nn.Sequential({"stem": one(), **dict(net.layers)})
    by_path["stem"] = T.Conv2d(4, 4, 1)
    table = check(net, by_path, lambda m, x: forward(m, m("stem")(x)), X)
    assert sum("flatten_order" in row for row in table) in (2, 4)


class Changing(nn.Layer):
    """A layer without a hash: its calls are not compiled."""

    def __init__(self):
        self.conv, self.dense = one(), nn.Dense(3)

    def parts(self):
        yield "conv", self.conv
        yield "dense", self.dense

    def declare(self, x):
        return {"conv": self.conv.spec(x), "dense": self.dense.spec(flat(x))}

    def apply(self, params, x):
        y = self.conv(params["conv"], x)
        return self.dense(params["dense"], y.reshape(y.shape[0], -1))


class Sub(nn.Dense):
    """A layer that computes what its base class does, in its own call."""

    def apply(self, params, x):
        return jnp.tanh(x @ params["kernel"] + params["bias"])


def test_layers_whose_calls_are_not_seen_as_such():
    by_path = {"conv": T.Conv2d(4, 4, 1), "dense": T.Linear(64, 3)}
    check(Changing(), by_path, lambda m, x: m("dense")(m("conv")(x).flatten(1)), X)
    net = nn.Sequential(one(), nn.Flatten(), Sub(3))
    by_path = {"0": T.Conv2d(4, 4, 1), "2": T.Linear(64, 3)}
    check(net, by_path, lambda m, x: m("2")(m("0")(x).flatten(1)).tanh(), X)

    @dataclass(frozen=True)
    class Dense(nn.Layer):
        """A class of the name of one of the package, with the same parameters as the layer inside."""

        inner: nn.Layer

        def declare(self, x):
            return {"inner": self.inner.spec(flat(x))}

        def apply(self, params, x):
            return self.inner(params["inner"], x.reshape(x.shape[0], -1))

    by_path = {"0": T.Conv2d(4, 4, 1), "1/inner": T.Linear(64, 3)}
    check(nn.Sequential(one(), Dense(nn.Dense(3))), by_path, lambda m, x: m("1/inner")(m("0")(x).flatten(1)), X)


@dataclass(frozen=True)
class Block(nn.Layer):
    """A block of ResNet (He et al. 2016), with a projection where the shape changes."""

    channels: int
    stride: int = 1
    parts_by_name: tuple = ()

    def parts(self):
        yield from self.layers.items()

    @property
    def layers(self):
        return dict(self.parts_by_name)

    def declare(self, x):
        y = jax.eval_shape(self._convolved("conv1"), x)
        shortcut = {"down": self.layers["down"].spec(x)} if "down" in self.layers else {}
        z = jax.ShapeDtypeStruct(y.shape, y.dtype)
        return {
            "conv1": self.layers["conv1"].spec(x), "bn1": self.layers["bn1"].spec(z),
            "conv2": self.layers["conv2"].spec(z), "bn2": self.layers["bn2"].spec(z), **shortcut,
        }  # fmt: skip

    def _convolved(self, name):
        layer = self.layers[name]
        return lambda x: layer(layer.init(jax.random.key(0), x), x)

    def apply(self, params, x):
        call = lambda name, x: self.layers[name](params[name], x)
        y = jax.nn.relu(call("bn1", call("conv1", x)))
        y = call("bn2", call("conv2", y))
        shortcut = call("down", x) if "down" in self.layers else x
        return jax.nn.relu(y + shortcut)


def block(before, channels, stride=1):
    layers = {
        "conv1": nn.Conv(channels, 3, stride=stride, padding=1, use_bias=False), "bn1": nn.BatchNorm(),
        "conv2": nn.Conv(channels, 3, padding=1, use_bias=False), "bn2": nn.BatchNorm(),
    }  # fmt: skip
    if stride > 1 or before != channels:
        layers["down"] = nn.Sequential(nn.Conv(channels, 1, stride=stride, use_bias=False), nn.BatchNorm())
    return Block(channels, stride, tuple(layers.items()))


class BlockThere(T.Module):
    def __init__(self, before, channels, stride=1):
        super().__init__()
        self.conv1 = T.Conv2d(before, channels, 3, stride, 1, bias=False)
        self.bn1 = norm_2d(channels)
        self.conv2 = T.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = norm_2d(channels)
        self.down = None
        if stride > 1 or before != channels:
            self.down = T.Sequential(T.Conv2d(before, channels, 1, stride, bias=False), norm_2d(channels))

    def forward(self, x):
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y))
        return (y + (x if self.down is None else self.down(x))).relu()


@pytest.mark.parametrize("pooled", [True, False])
def test_a_resnet_in_blocks_of_ones_own(pooled):
    sizes = [(4, 4, 1), (4, 6, 2), (6, 6, 1)]
    pool = (lambda x: x.mean((1, 2))) if pooled else nn.Flatten()
    stem = [nn.Conv(4, 3, padding=1, use_bias=False), nn.BatchNorm(), jax.nn.relu, nn.MaxPool(2, 1)]
    net = nn.Sequential(*stem, *(block(*size) for size in sizes), pool, nn.Dense(3))
    by_path = {"0": T.Conv2d(3, 4, 3, padding=1, bias=False), "1": norm_2d(4), "8": T.Linear(6 if pooled else 54, 3)}
    by_path |= {str(4 + at): BlockThere(*size) for at, size in enumerate(sizes)}

    def forward(m, x):
        y = F.max_pool2d(m("1")(m("0")(x)).relu(), 2, 1)
        for at in range(3):
            y = m(str(4 + at))(y)
        return m("8")(y.mean((2, 3)) if pooled else y.flatten(1))

    table = check(net, by_path, forward, draws(2, 6, 7, 3), tolerance=1e-3)
    assert sum("flatten_order" in row for row in table) == (not pooled)


@dataclass(frozen=True)
class ViT(nn.Layer):
    """A vision transformer (Dosovitskiy et al. 2021), with a token of the class before those of the patches."""

    patch: nn.Layer
    blocks: nn.Layer
    norm: nn.Layer
    head: nn.Layer
    whole: bool = False

    def declare(self, x):
        tokens = jax.ShapeDtypeStruct((2, 5, 8), "f4")
        read = jax.ShapeDtypeStruct((2, 40 if self.whole else 8), "f4")
        return {
            "patch": self.patch.spec(x), "cls": pt.Param((1, 1, 8)), "positions": pt.Param((1, 5, 8)),
            "blocks": self.blocks.spec(tokens), "norm": self.norm.spec(tokens), "head": self.head.spec(read),
        }  # fmt: skip

    def apply(self, params, x):
        x = self.patch(params["patch"], x)
        batch, rows, columns, features = x.shape
        first = jnp.broadcast_to(params["cls"], (batch, 1, features))
        x = jnp.concatenate([first, x.reshape(batch, rows * columns, features)], 1) + params["positions"]
        x = self.norm(params["norm"], self.blocks(params["blocks"], x))
        return self.head(params["head"], x.reshape(batch, -1) if self.whole else x[:, 0])


def transformer_block():
    attention = nn.Residual(nn.Sequential(nn.LayerNorm(epsilon=1e-5), nn.MultiHeadAttention(2)))
    mlp = nn.Residual(nn.Sequential(nn.LayerNorm(epsilon=1e-5), nn.Dense(16), jax.nn.gelu, nn.Dense(8)))
    return nn.Sequential(attention, mlp)


@pytest.mark.parametrize("scan", [True, False])
def test_a_vision_transformer_with_a_token_of_the_class(scan):
    blocks = nn.Repeat(transformer_block(), 2, scan=scan)
    net = ViT(nn.Conv(8, 2, stride=2), blocks, nn.LayerNorm(epsilon=1e-5), nn.Dense(3))
    by_path = {"patch": T.Conv2d(4, 8, 2, 2), "norm": T.LayerNorm(8), "head": T.Linear(8, 3)}
    holder = T.Module()
    holder.first, holder.positions = T.Parameter(torch.randn(1, 1, 8)), T.Parameter(torch.randn(1, 5, 8))
    by_path["tokens"] = holder
    for at in range(2):
        start = f"blocks/{at}"
        by_path |= {
            f"{start}/0/inner/0": T.LayerNorm(8), f"{start}/0/inner/1": T.MultiheadAttention(8, 2, batch_first=True),
            f"{start}/1/inner/0": T.LayerNorm(8), f"{start}/1/inner/1": T.Linear(8, 16), f"{start}/1/inner/3": T.Linear(16, 8),
        }  # fmt: skip

    def forward(m, x):
        tokens = m("patch")(x).flatten(2).transpose(1, 2)
        x = torch.cat([m("tokens").first.expand(2, 1, 8), tokens], 1) + m("tokens").positions
        for at in range(2):
            start = f"blocks/{at}"
            y = m(f"{start}/0/inner/0")(x)
            x = x + m(f"{start}/0/inner/1")(y, y, y)[0]
            y = m(f"{start}/1/inner/1")(m(f"{start}/1/inner/0")(x))
            x = x + m(f"{start}/1/inner/3")(F.gelu(y, approximate="tanh"))
        return m("head")(m("norm")(x)[:, 0])

    own = {"tokens.first": ("cls", convert.as_is), "tokens.positions": ("positions", convert.as_is)}
    table = check(net, by_path, forward, X, own=own)
    assert not any("flatten_order" in row for row in table)
    whole = ViT(nn.Conv(8, 2, stride=2), blocks, nn.LayerNorm(epsilon=1e-5), nn.Dense(3), whole=True)
    refused(whole, "'head', Dense in PyTorch: .*'norm', LayerNorm, reads channels last there", X, own=own)


@dataclass(frozen=True)
class TwoInputs(nn.Layer):
    """A model of an image and a vector."""

    conv: nn.Layer
    image: nn.Layer
    vector: nn.Layer
    head: nn.Layer

    def declare(self, image, vector):
        return {
            "conv": self.conv.spec(image), "image": self.image.spec(flat(image)), "vector": self.vector.spec(vector),
            "head": self.head.spec(jax.ShapeDtypeStruct((2, 9), "f4")),
        }  # fmt: skip

    def apply(self, params, image, vector):
        y = self.conv(params["conv"], image)
        y = self.image(params["image"], y.reshape(len(y), -1))
        z = self.vector(params["vector"], vector)
        return self.head(params["head"], jnp.concatenate([y, z], -1))


def test_a_model_of_an_image_and_a_vector():
    net = TwoInputs(one(), nn.Dense(5), nn.Dense(4), nn.Dense(3))
    by_path = {"conv": T.Conv2d(4, 4, 1), "image": T.Linear(64, 5), "vector": T.Linear(6, 4), "head": T.Linear(9, 3)}

    def forward(m, x, vector):
        return m("head")(torch.cat([m("image")(m("conv")(x).flatten(1)), m("vector")(vector)], 1))

    table = check(net, by_path, forward, X, draws(2, 6))
    assert [row for row in table if "flatten_order" in row] == [f"'image.weight' -> 'image/kernel', {ORDERED}"]


@dataclass(frozen=True)
class Called(nn.Layer):
    """A function of a layer and the inputs."""

    net: nn.Layer
    function: object
    read: tuple

    def declare(self, *inputs):
        return {"net": self.net.spec(jax.ShapeDtypeStruct(self.read, "f4"))}

    def apply(self, params, *inputs):
        return self.function(lambda x: self.net(params["net"], x), *inputs)


def test_inputs_that_are_added_and_inputs_that_are_flattened():
    layers = nn.Sequential(one(), nn.Flatten(), nn.Dense(3))
    by_path = {"net/0": T.Conv2d(4, 4, 1), "net/2": T.Linear(64, 3)}
    added = Called(layers, lambda net, x, y: net(x + 2 * y), (2, 4, 4, 4))
    check(added, by_path, lambda m, x, y: m("net/2")(m("net/0")(x + 2 * y).flatten(1)), X, draws(2, 4, 4, 4, seed=1))
    # a sequence beside an image is flattened as it is
    beside = Called(nn.Dense(3), lambda net, x, y: net(y.reshape(len(y), -1)) + x.mean((1, 2, 3))[:, None], (2, 15))
    steps = draws(2, 5, 3)
    by_path = {"net": T.Linear(15, 3)}
    check(
        beside, by_path, lambda m, x, y: m("net")(y.transpose(1, 2).flatten(1)) + x.mean((1, 2, 3))[:, None], X, steps
    )
    both = Called(nn.Dense(3), lambda net, x, y: net(jnp.concatenate([x.reshape(len(x), -1), y], -1)), (2, 67))
    refused(both, "'net', Dense in PyTorch: .*`concatenate` does not keep an order", X, draws(2, 3))


def test_models_of_tokens_have_one_order_whatever_their_classes_do():
    @dataclass(frozen=True)
    class Odd(nn.Layer):
        inner: nn.Layer

        def declare(self, x):
            return {"inner": self.inner.spec(jax.ShapeDtypeStruct((2, 20), "f4"))}

        def apply(self, params, x):
            y = jnp.sort(jnp.cumsum(x, 1)[:, ::-1] @ jnp.tri(4), 1)
            return self.inner(params["inner"], jnp.roll(y, 1, 1).reshape(2, -1) * jnp.arange(20.0))

    net = nn.Sequential(nn.Embedding(9, 4), Odd(nn.Dense(3)))
    tokens = np.arange(10, dtype="i4").reshape(2, 5) % 9
    table = list(convert.layer_table(net, tokens))
    assert table[1] == "'1.inner.weight' -> '1/inner/kernel', linear"
    rows = [*convert.layer_table(nn.Sequential(Odd(nn.Dense(3))), draws(2, 5, 4))]
    assert rows[0] == "'0.inner.weight' -> '0/inner/kernel', linear"


def resized(x):
    return jax.image.resize(x, (x.shape[0], 8, 6, x.shape[3]), "bilinear")


UPSAMPLED = {
    "repeat": (lambda x: jnp.repeat(jnp.repeat(x, 2, 1), 2, 2), lambda x: F.interpolate(x, scale_factor=2)),
    "nearest": (
        lambda x: jax.image.resize(x, (2, 8, 8, 4), "nearest"), lambda x: F.interpolate(x, scale_factor=2),
    ),
    "bilinear": (
        resized, lambda x: F.interpolate(x, (8, 6), mode="bilinear"),
    ),
    "flipped": (lambda x: x[:, :, ::-1], lambda x: x.flip(3)),
    "rolled": (lambda x: jnp.roll(x, 1, 1), lambda x: x.roll(1, 2)),
    "padded": (
        lambda x: jnp.pad(x, ((0, 0), (1, 1), (0, 2), (0, 0)), mode="reflect"),
        lambda x: F.pad(x, (0, 2, 1, 1), mode="reflect"),
    ),
    "taken": (lambda x: jnp.take(x, jnp.array([2, 0, 1]), axis=1), lambda x: x[:, :, [2, 0, 1]]),
    "cumulated": (lambda x: jnp.cumsum(x, 2), lambda x: x.cumsum(3)),
    "checkpointed": (jax.checkpoint(lambda x: jnp.tanh(x) * 2), lambda x: x.tanh() * 2),
    "shuffled": (
        lambda x: x.reshape(2, 4, 4, 2, 2).swapaxes(3, 4).reshape(2, 4, 4, 4), lambda x: F.channel_shuffle(x, 2),
    ),
    "gated": (lambda x: jnp.multiply(*jnp.split(x, 2, -1)), lambda x: x[:, :2] * x[:, 2:]),
    "pooled": (
        lambda x: jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 1, 1, 1), "VALID"),
        lambda x: F.max_pool2d(x, 2, 1),
    ),
    "loop": (
        lambda x: jax.lax.fori_loop(0, 3, lambda _, y: jnp.tanh(y + x), x),
        lambda x: ((x + x).tanh() + x).tanh().add(x).tanh(),
    ),
    "branch": (lambda x: jax.lax.cond(x.sum() > 1e9, jnp.sin, jnp.tanh, x), torch.tanh),
    "stacked": (lambda x: jnp.stack([x, 2 * x]).sum(0), lambda x: 3 * x),
}  # fmt: skip


@pytest.mark.parametrize("name", [*UPSAMPLED])
def test_functions_that_keep_the_axes_apart_are_followed(name):
    here, there = UPSAMPLED[name]
    net = nn.Sequential(one(), here, nn.Flatten(), nn.Dense(3))
    features = int(np.prod(jax.eval_shape(here, jnp.ones((2, 4, 4, 4))).shape[1:]))
    by_path = {"0": T.Conv2d(4, 4, 1), "3": T.Linear(features, 3)}
    table = check(net, by_path, lambda m, x: m("3")(there(m("0")(x)).flatten(1)), X)
    assert sum("flatten_order" in row for row in table) == 1


def test_an_image_in_a_dict_is_picked_by_a_function():
    net = nn.Sequential(lambda batch: batch["image"], one(), nn.Flatten(), nn.Dense(3))
    rows = list(convert.layer_table(net, {"image": X, "label": draws(2), "other": draws(2, 5, 6, 1)}))
    assert rows[2] == f"'3.weight' -> '3/kernel', {ORDERED}"


@dataclass(frozen=True)
class UNet(nn.Layer):
    """A U-Net (Ronneberger et al. 2015) of one level, flattened at its end."""

    down: nn.Layer
    deep: nn.Layer
    up: nn.Layer
    last: nn.Layer
    head: nn.Layer

    def declare(self, x):
        shape = lambda *sizes: jax.ShapeDtypeStruct(sizes, "f4")
        return {
            "down": self.down.spec(x), "deep": self.deep.spec(shape(2, 2, 2, 4)), "up": self.up.spec(shape(2, 2, 2, 6)),
            "last": self.last.spec(shape(2, 4, 4, 9)), "head": self.head.spec(shape(2, 32)),
        }  # fmt: skip

    def apply(self, params, x):
        fine = jax.nn.relu(self.down(params["down"], x))
        deep = jax.nn.relu(self.deep(params["deep"], nn.MaxPool(2)({}, fine)))
        up = self.up(params["up"], deep)
        last = self.last(params["last"], jnp.concatenate([fine, up], axis=-1))
        return self.head(params["head"], last.reshape(last.shape[0], -1))


def test_a_u_net_with_concatenations_and_a_flatten():
    net = UNet(nn.Conv(4, 3, padding=1), nn.Conv(6, 1), nn.ConvTranspose(5, 2, stride=2), nn.Conv(2, 1), nn.Dense(3))
    by_path = {
        "down": T.Conv2d(4, 4, 3, padding=1), "deep": T.Conv2d(4, 6, 1), "up": T.ConvTranspose2d(6, 5, 2, 2),
        "last": T.Conv2d(9, 2, 1), "head": T.Linear(32, 3),
    }  # fmt: skip

    def forward(m, x):
        fine = m("down")(x).relu()
        up = m("up")(m("deep")(F.max_pool2d(fine, 2)).relu())
        return m("head")(m("last")(torch.cat([fine, up], 1)).flatten(1))

    check(net, by_path, forward, X)


def test_gates_of_squeeze_and_excitation_keep_the_channels():
    squeeze = nn.Sequential(lambda x: x.mean((1, 2)), nn.Dense(2), jax.nn.relu, nn.Dense(4), jax.nn.sigmoid)
    gate = nn.Parallel({"x": jnp.positive, "gate": squeeze}, combine=lambda x, gate: x * gate[:, None, None])
    by_path = {"0": T.Conv2d(4, 4, 1), "1/gate/1": T.Linear(4, 2), "1/gate/3": T.Linear(2, 4), "3": T.Linear(64, 3)}

    def forward(m, x):
        y = m("0")(x)
        gate = m("1/gate/3")(m("1/gate/1")(y.mean((2, 3))).relu()).sigmoid()
        return m("3")((y * gate[:, :, None, None]).flatten(1))

    check(nn.Sequential(one(), gate, nn.Flatten(), nn.Dense(3)), by_path, forward, X)


def test_frames_of_a_video_are_images():
    net = nn.Sequential(nn.Conv(4, (3, 3), padding=0), lambda x: x.reshape(2, 3, -1), nn.Dense(3))
    by_path = {"0": T.Conv2d(4, 4, 3), "2": T.Linear(16, 3)}

    def forward(m, x):
        y = m("0")(x.transpose(1, 2).flatten(0, 1))
        return m("2")(y.flatten(1)).unflatten(0, (2, 3))

    check(net, by_path, forward, draws(2, 3, 4, 4, 4))


def test_parameters_of_ones_own_beside_flattened_features():
    @dataclass(frozen=True)
    class Scaled(nn.Layer):
        def declare(self, x):
            return {"scale": pt.Param((x.shape[-1],), init=pt.initializers.ones)}

        def apply(self, params, x):
            return x * params["scale"]

    net = nn.Sequential(one(), nn.Flatten(), Scaled(), nn.Dense(3))
    refused(net, "'2/scale'.* is not known: say it", X)
    holder = T.Module()
    holder.scale = T.Parameter(torch.randn(64))
    by_path = {"0": T.Conv2d(4, 4, 1), "2": holder, "3": T.Linear(64, 3)}
    own = {"2.scale": ("2/scale", convert.flatten_order((4, 4, 4), (1, 2, 0)))}
    check(net, by_path, lambda m, x: m("3")(m("0")(x).flatten(1) * m("2").scale), X, own=own)


def test_a_vector_that_is_reshaped_to_an_image_is_refused_until_its_rows_are_given():
    net = nn.Sequential(
        nn.Dense(32), nn.LayerNorm(epsilon=1e-5), lambda x: x.reshape(len(x), 2, 4, 4), nn.ConvTranspose(3, 2, stride=2)
    )
    vector = draws(2, 5)
    refused(net, "'0', Dense in PyTorch: its output is reshaped to an image(.|\n)*'1', LayerNorm in PyTorch", vector)
    image = convert.flatten_order((4, 2, 4), (1, 2, 0))
    own = {
        "0.weight": ("0/kernel", convert.linear >> convert.flatten_order((4, 2, 4), (1, 2, 0), axis=1)),
        "0.bias": ("0/bias", image), "1.weight": ("1/scale", image), "1.bias": ("1/bias", image),
    }  # fmt: skip
    norm = T.LayerNorm(32)
    T.init.normal_(norm.weight)
    by_path = {"0": T.Linear(5, 32), "1": norm, "3": T.ConvTranspose2d(4, 3, 2, 2)}

    def forward(m, x):
        return m("3")(m("1")(m("0")(x)).unflatten(1, (4, 2, 4))).permute(0, 2, 3, 1)

    check(net, by_path, forward, vector, own=own)
    # heads and groups of tokens are no images
    grouped = nn.Sequential(nn.Dense(4), nn.GroupNorm(2), nn.Conv(4, (1,)))
    assert len(convert.layer_table(grouped, draws(2, 5, 4))) == 6


@dataclass(frozen=True)
class TokenMixer(nn.Layer):
    """A block of an MLP-mixer (Tolstikhin et al. 2021): one dense layer over places, then one over channels."""

    norm: nn.Layer = field(default_factory=lambda: nn.LayerNorm(epsilon=1e-5))
    places: nn.Layer = field(default_factory=lambda: nn.Dense(16))
    channels: nn.Layer = field(default_factory=lambda: nn.Dense(4))

    def declare(self, x):
        turned = jax.ShapeDtypeStruct((x.shape[0], x.shape[2], x.shape[1]), x.dtype)
        return {"norm": self.norm.spec(turned), "places": self.places.spec(turned), "channels": self.channels.spec(x)}

    def apply(self, params, x):
        turned = x.swapaxes(1, 2)
        turned = turned + jnp.tanh(self.places(params["places"], self.norm(params["norm"], turned)))
        x = turned.swapaxes(1, 2)
        return x + self.channels(params["channels"], x)


def tokens(x):
    return x.reshape(x.shape[0], -1, x.shape[-1])


def test_a_mixer_of_tokens():
    net = nn.Sequential(one(), tokens, TokenMixer(), TokenMixer(), lambda x: x.mean(1), nn.Dense(3))
    norms = [T.LayerNorm(16), T.LayerNorm(16)]
    for norm in norms:
        T.init.normal_(norm.weight)
    by_path = {"0": T.Conv2d(4, 4, 1), "5": T.Linear(4, 3)}
    for at, norm in zip((2, 3), norms, strict=True):
        by_path |= {f"{at}/norm": norm, f"{at}/places": T.Linear(16, 16), f"{at}/channels": T.Linear(4, 4)}

    def forward(m, x):
        y = m("0")(x).flatten(2)
        for at in (2, 3):
            y = y + m(f"{at}/places")(m(f"{at}/norm")(y)).tanh()
            y = (y.mT + m(f"{at}/channels")(y.mT)).mT
        return m("5")(y.mean(2))

    check(net, by_path, forward, X)
    # the last block may give places or channels first there
    flattened = nn.Sequential(one(), tokens, TokenMixer(), nn.Flatten(), nn.Dense(3))
    refused(flattened, "'4', Dense in PyTorch: the order there of the features", X)


def test_places_that_are_mixed_and_flattened_behind_their_channels_are_in_one_order():
    net = nn.Sequential(one(), tokens, lambda x: x.swapaxes(1, 2), nn.Dense(6), jnp.tanh, nn.Flatten(), nn.Dense(3))
    by_path = {"0": T.Conv2d(4, 4, 1), "3": T.Linear(16, 6), "6": T.Linear(24, 3)}
    check(net, by_path, lambda m, x: m("6")(m("3")(m("0")(x).flatten(2)).tanh().flatten(1)), X)
    # turned back, they are flattened in another order
    net = nn.Sequential(*[*net][:5], lambda x: x.swapaxes(1, 2), *[*net][5:])
    by_path = {"0": T.Conv2d(4, 4, 1), "3": T.Linear(16, 6), "7": T.Linear(24, 3)}
    check(net, by_path, lambda m, x: m("7")(m("3")(m("0")(x).flatten(2)).tanh().flatten(1)), X)


def as_image(x):
    return x.reshape(len(x), 4, 2, 3)


def channels_last(x):
    return x.reshape(len(x), 3, 4, 2).transpose(0, 2, 3, 1)


IMAGE = convert.Table({"1.weight": ("1/kernel", convert.conv), "1.bias": "1/bias"})


@pytest.mark.parametrize("order", ["kept", "of the module"])
def test_an_input_vector_that_is_reshaped_to_an_image_is_refused_until_its_rows_are_given(order):
    net = nn.Sequential(as_image, nn.Conv(4, (1, 3)), jnp.tanh, nn.Flatten(), nn.Dense(3))
    vector = draws(2, 24)
    refused(
        net, r"'1', Conv in PyTorch: an input of the model is reshaped to an image or a sequence at test_flow_of_features.py:\d+,",
        vector,
    )  # fmt: skip
    assert len(convert.layer_table(net, vector, framework="keras")) == 4
    by_path = {"1": T.Conv2d(3, 4, (1, 3), padding="same"), "4": T.Linear(32, 3)}

    def forward(m, x):
        if order == "kept":  # the module reshapes to channels last too
            image = x.unflatten(1, (4, 2, 3)).permute(0, 3, 1, 2)
        else:  # the module is given the features in the order that it reshapes
            given = x.unflatten(1, (4, 2, 3)).permute(0, 3, 1, 2).flatten(1)
            image = given.unflatten(1, (3, 4, 2))
        return m("4")(m("1")(image).tanh().flatten(1))

    table = check(net, by_path, forward, vector, own=IMAGE)
    assert "'4.weight' -> '4/kernel', linear >> flatten_order((4, 4, 2), (1, 2, 0))" in list(table)


@pytest.mark.parametrize(
    ("inside", "layer"),
    [
        ([nn.BatchNorm(), nn.Conv(4, (1, 1))], "'2', BatchNorm"),
        ([nn.MaxPool(2), nn.Conv(4, (1, 1))], "'3', Conv"),
        ([jnp.tanh, nn.MaxPool(2)], "'5', Dense"),
    ],
)
def test_norms_and_pools_of_an_image_made_of_an_input_are_refused_too(inside, layer):
    net = nn.Sequential(lambda x: x * 2, as_image, *inside, nn.Flatten(), nn.Dense(3))
    refused(
        net, f"{layer} in PyTorch: .*an input of the model is reshaped to an image or a sequence at test_", draws(2, 24)
    )


@pytest.mark.parametrize("first", [[], [nn.Dense(24)]])
def test_a_vector_that_is_reshaped_with_its_channels_first_is_as_there(first):
    net = nn.Sequential(
        *first,
        lambda x: x.reshape(len(x), 3, 4, 2).transpose(0, 2, 3, 1),
        nn.Conv(4, (1, 3)),
        nn.Flatten(),
        nn.Dense(3),
    )
    at = len(first)
    by_path = {"0": T.Linear(24, 24)} if first else {}
    by_path |= {f"{at + 1}": T.Conv2d(3, 4, (1, 3), padding="same"), f"{at + 3}": T.Linear(32, 3)}

    def forward(m, x):
        x = m("0")(x) if first else x
        return m(f"{at + 3}")(m(f"{at + 1}")(x.unflatten(1, (3, 4, 2))).flatten(1))

    check(net, by_path, forward, draws(2, 24))
    # without a convolution the module may have transposed as well
    flattened = nn.Sequential(channels_last, nn.Flatten(), nn.Dense(3))
    refused(flattened, "'2', Dense in PyTorch: .*there they may stay first", draws(2, 24))


def test_a_vector_that_is_reshaped_to_one_channel_or_one_place_has_one_order():
    net = nn.Sequential(lambda x: x.reshape(len(x), 4, 6, 1), nn.Conv(2, (1, 3)), nn.Flatten(), nn.Dense(3))
    by_path = {"1": T.Conv2d(1, 2, (1, 3), padding="same"), "3": T.Linear(48, 3)}
    check(net, by_path, lambda m, x: m("3")(m("1")(x.unflatten(1, (1, 4, 6))).flatten(1)), draws(2, 24))
    net = nn.Sequential(
        lambda x: x.reshape(len(x), 1, 1, 24), nn.ConvTranspose(2, 2, stride=2), nn.Flatten(), nn.Dense(3)
    )
    by_path = {"1": T.ConvTranspose2d(24, 2, 2, 2), "3": T.Linear(8, 3)}
    check(net, by_path, lambda m, x: m("3")(m("1")(x.unflatten(1, (24, 1, 1))).flatten(1)), draws(2, 24))


USES = {
    "product of parameters": lambda conv, dense, kernel, x: conv(x) * dense(jnp.ones((1, 64))),
    "transposed": lambda conv, dense, kernel, x: dense(conv(x)) @ kernel.T,
    "other axis": lambda conv, dense, kernel, x: jnp.einsum("bf,kf->bk", conv(x), kernel),
    "called twice": lambda conv, dense, kernel, x: dense(dense(conv(x))),
    "parts flattened": lambda conv, dense, kernel, x: dense(
        jnp.tile(conv(x).reshape(2, 4, 16), (1, 1, 4)).swapaxes(0, 1)[0]
    ),
    "sorted": lambda conv, dense, kernel, x: dense(jnp.sort(conv(x))),
    "most similar": lambda conv, dense, kernel, x: dense(jax.nn.one_hot(conv(x).argmax(-1), 64)),
}


@pytest.mark.parametrize("use", [*USES])
def test_other_uses_of_flattened_features_are_refused(use):
    @dataclass(frozen=True)
    class Using(nn.Layer):
        conv: nn.Layer
        dense: nn.Layer

        def declare(self, x):
            return {"conv": self.conv.spec(x), "dense": self.dense.spec(flat(x))}

        def apply(self, params, x):
            convolved = lambda x: self.conv(params["conv"], x).reshape(2, -1)
            return USES[use](convolved, lambda x: self.dense(params["dense"], x), params["dense"]["kernel"], x)

    if use == "product of parameters":  # the features of both are in one order only by chance
        refused(nn.Sequential(Using(one(), nn.Dense(64)), nn.Dense(3)), "'0/dense', Dense in PyTorch", X)
    else:
        refused(Using(one(), nn.Dense(64)), "'dense', Dense in PyTorch", X)


def test_a_decoder_that_is_tied_to_the_transposed_encoder_is_refused():
    @dataclass(frozen=True)
    class Tied(nn.Layer):
        encoder: nn.Layer
        decoder: nn.Layer

        def declare(self, x):
            code = jax.ShapeDtypeStruct((2, 64), "f4")
            specs = {"encoder": self.encoder.spec(flat(x)), "decoder": self.decoder.spec(code)}
            return pt.tie(pt.Tree(specs), {"decoder/kernel": pt.transposed("encoder/kernel")})

        def apply(self, params, x):
            return self.decoder(params["decoder"], self.encoder(params["encoder"], x.reshape(2, -1)))

    net = nn.Sequential(one(), Tied(nn.Dense(64), nn.Dense(64)))
    refused(net, "'1/encoder', Dense in PyTorch: it goes with features that are flattened in another order there", X)


def test_a_model_that_cannot_be_traced_is_refused_where_channels_come_first():
    @dataclass(frozen=True)
    class Looking(nn.Layer):
        inner: nn.Layer

        def declare(self, x):
            return {"inner": self.inner.spec(x)}

        def apply(self, params, x):
            return self.inner(params["inner"], x if x.sum() > 0 else -x)

    net = Looking(nn.Dense(3))
    refused(
        net, "'inner', Dense in PyTorch: the order of features is not known, as JAX cannot trace the model", draws(2, 4)
    )
    assert len(convert.layer_table(net, draws(2, 4), own={"w": "inner/kernel", "b": "inner/bias"})) == 2
    assert len(convert.layer_table(net, draws(2, 4), framework="keras")) == 2
