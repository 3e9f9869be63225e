"""A checkpoint of PyTorch with model, optimizer and epoch: by its moments, Adam of optax goes on as PyTorch's own goes on."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ptree as pt
from ptree import convert

torch = pytest.importorskip("torch")

RATE = 0.01
MODEL = convert.Table({"*.weight": ("*/kernel", convert.linear), "*.bias": "*/bias"})
MOMENTS = convert.Table({
    "0.{exp_avg,exp_avg_sq}": ("{mu,nu}/0/kernel", convert.linear),  # square: the shape would not tell
    "1.{exp_avg,exp_avg_sq}": "{mu,nu}/0/bias",
    "2.{exp_avg,exp_avg_sq}": ("{mu,nu}/2/kernel", convert.linear),
    "3.{exp_avg,exp_avg_sq}": "{mu,nu}/2/bias",
    "*.step": convert.carry,
})  # fmt: skip
LIKE = {
    "0": {"kernel": jnp.zeros((4, 4)), "bias": jnp.zeros(4)},
    "2": {"kernel": jnp.zeros((4, 3)), "bias": jnp.zeros(3)},
}
X = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")


def steps_of_torch(net, adam, count):
    for _ in range(count):
        adam.zero_grad()
        net(torch.tensor(X)).square().mean().backward()
        adam.step()


def loss(params, x):
    hidden = jnp.tanh(x @ params["0"]["kernel"] + params["0"]["bias"])
    return jnp.square(hidden @ params["2"]["kernel"] + params["2"]["bias"]).mean()


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("decay", [0.0, 0.1], ids=["Adam", "AdamW"])
def test_adam_goes_on_as_in_pytorch(tmp_path, is_zip, decay):
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Tanh(), torch.nn.Linear(4, 3))
    adam = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=decay)
    steps_of_torch(net, adam, 3)
    whole = {"model": net.state_dict(), "optimizer": adam.state_dict(), "epoch": 3}
    torch.save(whole, tmp_path / "full.pt", _use_new_zipfile_serialization=is_zip)
    steps_of_torch(net, adam, 4)

    params = MODEL.apply(pt.load(tmp_path / "full.pt", select="model")["model"], like=LIKE)
    saved = pt.load(tmp_path / "full.pt", select="optimizer")["optimizer/state"]
    with pt.open(tmp_path / "full.pt") as file:
        assert file.metadata["epoch"] == "3"
        rate = float(file.metadata["optimizer/param_groups/0/lr"])
    optimiser = optax.adamw(rate, weight_decay=decay)
    slots, *rest = optimiser.init(params)
    moments = MOMENTS.apply(saved, like={"mu": slots.mu, "nu": slots.nu})
    state = (slots._replace(count=jnp.int32(saved["0/step"]), **moments), *rest)
    assert int(state[0].count) == 3
    for _ in range(4):
        updates, state = optimiser.update(jax.grad(loss)(params, X), state, params)
        params = optax.apply_updates(params, updates)

    expected = MODEL.apply(net.state_dict(), like=LIKE)
    for path, leaf in pt.items(expected):
        np.testing.assert_allclose(pt.get(params, path), leaf, atol=2e-6, err_msg=path)


def test_what_has_no_row_is_named(tmp_path):
    net = torch.nn.Linear(4, 3)
    torch.save({"model": net.state_dict(), "ema": {"weight": torch.ones(3, 4)}}, tmp_path / "full.pt")
    rows = {"model.weight": ("kernel", convert.linear), "model.bias": "bias"}
    like = {"kernel": jnp.zeros((4, 3)), "bias": jnp.zeros(3)}
    with pytest.raises(pt.StructureError, match="ema/weight"):
        convert.Table(rows).apply(tmp_path / "full.pt", like=like)
    params = convert.Table({**rows, "ema.**": convert.carry}).apply(tmp_path / "full.pt", like=like)
    np.testing.assert_array_equal(params["kernel"], net.weight.detach().numpy().T)
