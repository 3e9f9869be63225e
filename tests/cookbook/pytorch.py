"""What recipes of the cookbook take with PyTorch. The tests run these functions where it is installed, and `count.py` counts their lines.

A module is changed in place, as PyTorch does; the tests give each function a module of its own.
"""

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

Batch = tuple[torch.Tensor, torch.Tensor]


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.fc = nn.LayerNorm(8), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.relu(self.fc(self.norm(x)))


class Classifier(nn.Module):
    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 8)
        self.layers = nn.ModuleList([Block(), Block()])
        self.head = nn.Linear(8, classes)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.embed(ids)
        for layer in self.layers:
            x = layer(x)
        return self.head(x.mean(dim=1))


class LanguageModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(50, 8), nn.Linear(8, 50)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.embed(ids))


def make(seed: int, classes: int = 3) -> Classifier:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Classifier(classes)


def loss(model: nn.Module, batch: Batch) -> torch.Tensor:
    ids, labels = batch
    return nn.functional.cross_entropy(model(ids), labels)


def arrays(model: Classifier) -> dict[str, np.ndarray]:
    """The arrays under their names, for the tests."""
    return {name: tensor.detach().numpy().copy() for name, tensor in model.state_dict().items()}


# --------------------------------------------------------------------------- look up and change


def see_all(model: Classifier) -> str:
    """How do I see all parameters, with shapes and sizes?"""
    rows = [f"{name}  {tuple(p.shape)}  {p.numel()}" for name, p in model.named_parameters()]
    rows.append(f"{sum(p.numel() for p in model.parameters())} parameters")
    return "\n".join(rows)


def count(model: Classifier) -> tuple[int, int, int]:
    """How do I count the parameters, and those that are trained?"""
    model.requires_grad_(False)
    model.head.requires_grad_(True)
    kernels = sum(module.weight.numel() for module in model.modules() if isinstance(module, nn.Linear))
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return sum(p.numel() for p in model.parameters()), kernels, trained


def flat_names_and_back(model: Classifier) -> tuple[dict[str, torch.Tensor], Classifier]:
    """How do I go from nested dicts to flat names and back?

    https://docs.pytorch.org/tutorials/recipes/recipes/what_is_state_dict.html
    """
    flat = model.state_dict()
    model.load_state_dict(flat)
    return flat, model


def rename(model: Classifier) -> dict[str, torch.Tensor]:
    """How do I rename parts of a model?"""
    import re

    renamed = {}
    for name, tensor in model.state_dict().items():
        renamed[re.sub(r"^head\.", "out.", re.sub(r"^layers\.", "blocks.", name))] = tensor
    return renamed


def replace_head(model: Classifier, classes: int) -> Classifier:
    """How do I replace the head for another number of classes?

    https://docs.pytorch.org/tutorials/beginner/transfer_learning_tutorial.html
    """
    model.head = nn.Linear(8, classes)
    return model


def mix(encoder_of: Classifier, head_of: Classifier) -> Classifier:
    """How do I take the encoder of one model and the head of another?"""
    mixed = copy.deepcopy(encoder_of)
    mixed.head.load_state_dict(head_of.head.state_dict())
    return mixed


def average(runs: list[Classifier]) -> Classifier:
    """How do I average checkpoints, or the weights of several runs?"""
    states = [run.state_dict() for run in runs]
    mean = copy.deepcopy(runs[0])
    mean.load_state_dict({name: torch.stack([state[name] for state in states]).mean(dim=0) for name in states[0]})
    return mean


def prune(model: Classifier) -> Classifier:
    """How do I prune the smallest weights, all layers together?

    https://docs.pytorch.org/tutorials/intermediate/pruning_tutorial.html
    """
    from torch.nn.utils import prune

    kernels = [(module, "weight") for module in model.modules() if isinstance(module, nn.Linear)]
    prune.global_unstructured(kernels, pruning_method=prune.L1Unstructured, amount=0.8)
    for module, name in kernels:
        prune.remove(module, name)
    return model


def cast(model: Classifier) -> Classifier:
    """How do I cast a model to bfloat16, but not its norms?"""
    for module in model.modules():
        if not list(module.children()) and not isinstance(module, nn.LayerNorm):
            module.to(torch.bfloat16)
    return model


def moments_of_a_layer(model: Classifier, optimizer: torch.optim.Adam) -> tuple[torch.Tensor, torch.Tensor]:
    """How do I look up Adam's moments of one layer?"""
    slots = optimizer.state[model.head.weight]
    return slots["exp_avg"], slots["exp_avg_sq"]


# ---------------------------------------------------------------------------- initialise, share


def initialise(model: Classifier) -> Classifier:
    """How do I initialise one layer differently?

    https://docs.pytorch.org/docs/stable/nn.init.html
    """
    nn.init.normal_(model.head.weight, std=0.01)
    for layer in model.layers:
        nn.init.orthogonal_(layer.fc.weight)
    return model


def tie() -> LanguageModel:
    """How do I tie the output layer to the embedding?"""
    model = LanguageModel()
    model.head.weight = model.embed.weight
    return model


# ----------------------------------------------------------------------------------------- train


def freeze_and_unfreeze(model: Classifier, batch: Batch) -> Iterator[Classifier]:
    """How do I freeze the encoder and unfreeze it later?

    https://docs.pytorch.org/tutorials/beginner/transfer_learning_tutorial.html
    """
    encoder = [*model.embed.parameters(), *model.layers.parameters()]
    for p in encoder:
        p.requires_grad_(False)
    optimizer = torch.optim.Adam(model.head.parameters(), lr=1e-2)
    loss(model, batch).backward()
    optimizer.step()
    yield model
    for p in encoder:
        p.requires_grad_(True)
    optimizer.add_param_group({"params": encoder})
    optimizer.zero_grad()
    loss(model, batch).backward()
    optimizer.step()
    yield model


def rates(model: Classifier) -> list[torch.optim.Optimizer]:
    """How do I give layers different learning rates?

    https://docs.pytorch.org/docs/stable/optim.html
    """
    encoder = [p for name, p in model.named_parameters() if not name.startswith("head.")]
    groups = [{"params": encoder, "lr": 1e-5}, {"params": [model.head.weight], "lr": 1e-3}]
    return [torch.optim.Adam(groups), torch.optim.SGD([model.head.bias], lr=0.1)]


def decay(model: Classifier) -> torch.optim.Optimizer:
    """How do I leave biases and norms out of weight decay?

    https://docs.pytorch.org/docs/stable/optim.html
    """
    kernels = [module.weight for module in model.modules() if isinstance(module, nn.Linear)]
    chosen = {id(p) for p in kernels}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    groups = [{"params": kernels, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=1e-3)


def accumulate(model: Classifier, batch: Batch) -> Classifier:
    """How do I accumulate gradients over microbatches?

    https://docs.pytorch.org/docs/stable/notes/amp_examples.html
    """
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    ids, labels = batch
    for part in zip(ids.chunk(4), labels.chunk(4)):
        (loss(model, part) / 4).backward()
    optimizer.step()
    return model


def moving_average(model: Classifier, batch: Batch) -> tuple[nn.Module, nn.Module]:
    """How do I keep a moving average (EMA) of the weights?

    https://docs.pytorch.org/docs/stable/optim.html
    """
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    averaged.update_parameters(model)
    for _ in range(10):
        optimizer.zero_grad()
        loss(model, batch).backward()
        optimizer.step()
        averaged.update_parameters(model)
    return model, averaged


def three_seeds(batch: Batch) -> torch.Tensor:
    """How do I train three seeds at once?

    https://docs.pytorch.org/tutorials/intermediate/ensembling.html
    """
    models = [make(seed) for seed in range(3)]
    params, buffers = torch.func.stack_module_state(models)
    optimizer = torch.optim.Adam(params.values(), lr=1e-2)
    base = copy.deepcopy(models[0]).to("meta")

    def one(params: dict[str, torch.Tensor], buffers: dict[str, torch.Tensor]) -> torch.Tensor:
        logits = torch.func.functional_call(base, (params, buffers), (batch[0],))
        return nn.functional.cross_entropy(logits, batch[1])

    losses = torch.vmap(one)(params, buffers)
    losses.sum().backward()
    optimizer.step()
    return losses


def resume(model: Classifier, batch: Batch, path: str, last: int) -> tuple[int, Classifier]:
    """How do I resume a run after a crash?

    https://docs.pytorch.org/tutorials/recipes/recipes/saving_and_loading_a_general_checkpoint.html
    """
    import os

    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    first = 0
    if os.path.exists(path):
        state = torch.load(path, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
    for at in range(first + 1, last + 1):
        optimizer.zero_grad()
        loss(model, batch).backward()
        optimizer.step()
        state = {"step": at, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
        torch.save(state, path + ".new")
        os.replace(path + ".new", path)
    return first, model


def resize(model: Classifier, words: int) -> Classifier:
    """How do I resize the vocabulary?"""
    larger = nn.Embedding(words, 8)
    nn.init.normal_(larger.weight, std=0.02)
    with torch.no_grad():
        larger.weight[: model.embed.num_embeddings] = model.embed.weight
    model.embed = larger
    return model


def penalty(model: Classifier, batch: Batch) -> torch.Tensor:
    """How do I add an L2 penalty of the kernels to the loss?"""
    kernels = [module.weight for module in model.modules() if isinstance(module, nn.Linear)]
    return loss(model, batch) + 1e-3 * sum(w.square().sum() for w in kernels)


def gradients_of_some(model: Classifier, batch: Batch) -> torch.Tensor:
    """How do I compute gradients of some parameters only?"""
    return torch.autograd.grad(loss(model, batch), model.head.weight)[0]


# ------------------------------------------------------------------------------- files, look


def differences(before: Classifier, after: Classifier) -> dict[str, str]:
    """What changed between two checkpoints?"""
    a, b = before.state_dict(), after.state_dict()
    found = {name: "removed" for name in a if name not in b}
    found |= {name: "added" for name in b if name not in a}
    for name in a.keys() & b.keys():
        if a[name].shape != b[name].shape:
            found[name] = "reshaped"
        elif not torch.equal(a[name], b[name]):
            change = (b[name] - a[name]).norm() / a[name].norm()
            found[name] = f"changed by {change:.3g}"
    return found


def load_a_part(model: Classifier, checkpoint: dict[str, Any]) -> tuple[Classifier, list[str], list[str]]:
    """How do I load a part of a checkpoint, under other names?

    https://docs.pytorch.org/tutorials/recipes/recipes/warmstarting_model_using_parameters_from_a_different_model.html
    """
    body = {name.removeprefix("body."): tensor for name, tensor in checkpoint.items() if name.startswith("body.")}
    kept, unexpected = model.load_state_dict(body, strict=False)
    if unexpected:
        raise ValueError(unexpected)
    return model, kept, [name for name in checkpoint if not name.startswith("body.")]


def not_finite(model: Classifier) -> dict[str, tuple[int, tuple[int, ...]]]:
    """Which leaf is NaN?"""
    found = {}
    for name, p in model.named_parameters():
        places = (~torch.isfinite(p)).nonzero()
        if len(places):
            found[name] = (len(places), tuple(places[0].tolist()))
    return found


def gradient_norms(model: Classifier, batch: Batch) -> dict[str, float]:
    """How do I log the gradient norm of each layer?

    https://docs.pytorch.org/tutorials/intermediate/visualizing_gradients_tutorial.html
    """
    loss(model, batch).backward()
    linear = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    return {name: float(module.weight.grad.norm()) for name, module in linear.items()}


def update_ratios(model: Classifier, batch: Batch) -> dict[str, torch.Tensor]:
    """How large are updates beside the weights?"""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    loss(model, batch).backward()
    optimizer.step()
    return {name: (p.detach() - before[name]).norm() / before[name].norm() for name, p in model.named_parameters()}
