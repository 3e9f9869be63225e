"""layer_table: the table between a framework's names and the parameters of a model that is built of layers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ..._errors import LayerError
from ..._tree import PyTree, Tree, aliases
from ..._words import describe, lines, quoted, suggestion
from ...nn._layer import adapted, is_layer
from .._table.names import NamePattern
from .._table.row import Row, Source, Target
from .._table.table import Table
from .data_flow import DataFlow
from .equinox_layers import EQUINOX
from .framework import Framework, quoted_names
from .gluon_layers import GLUON
from .haiku_layers import HAIKU
from .keras_layers import KERAS
from .layer_forms import LayerForms
from .linen_layers import LINEN
from .module_names import ModuleNames
from .nnx_layers import NNX
from .pytorch_layers import PYTORCH
from .walk import Walk

FRAMEWORKS: dict[str, Framework] = {
    "torch": PYTORCH,
    "keras": KERAS,
    "linen": LINEN,
    "nnx": NNX,
    "haiku": HAIKU,
    "equinox": EQUINOX,
    "gluon": GLUON,
}


def layer_table(
    net: PyTree,
    *inputs: PyTree,
    framework: str = "torch",
    names: Mapping[str, str] | None = None,
    own: Table | Mapping[Source, Target] | None = None,
    forms: Mapping[str, str] | None = None,
) -> Table:
    """The table from a framework's names to the parameters of a model of `ptree.nn`; each layer knows its layout there.

    >>> import jax.numpy as jnp
    >>> from ptree import convert, nn
    >>> net = nn.Sequential(nn.Dense(4), nn.LSTM(4))
    >>> x = jnp.ones((2, 5, 4))
    >>> convert.layer_table(net, x, names={"1": "rnn"})
    Table(
      '0.weight' -> '0/kernel', linear
      '0.bias' -> '0/bias', as_is
      'rnn.weight_ih_l0' -> '1/input/kernel', linear
      'rnn.bias_ih_l0' -> '1/input/bias', as_is
      'rnn.weight_hh_l0' -> '1/hidden/kernel', linear
      'rnn.bias_hh_l0' -> '1/hidden/bias', as_is
    )

    `layer_table(net, x).apply(module.state_dict(), like=net.spec(x))` gives the parameters, square kernels transposed where they
    must be; `layer_table(net, x).inverse.apply(params, like=module.state_dict())` is for `module.load_state_dict`.

    In frameworks with channels first, features that are flattened after a convolution, a pool, a `BatchNorm` or a `GroupNorm` lie in
    another order, and a `Dense` or a norm that reads them gets `flatten_order`. The order is followed through the whole
    call `net(params, *inputs)` as JAX traces it: through containers, classes and functions of your own. A layer whose features
    have an order that is not certain is refused until `own` gives its rows; the message names the step: one that mixes
    flattened features, or a reshape of a vector to an image.

    - "torch": names of `state_dict()`. `lstm:1` in `names` is the second layer of an `nn.LSTM`. Attention is
      `nn.MultiheadAttention`; with modules for its `q`, `k`, `v` and `o` in `names`, these are `nn.Linear`.
    - "keras": the names in a `.keras` file, of layers that have the names they have in ptree: else give `names={"0": "dense"}`. In `variable.path`
      of a live model the model's name comes first: `names={"": "sequential"}`. A `.weights.h5` file numbers its arrays: load it
      into the model. Its layers are taken as `channels_last`, the default: a `channels_first` model that flattens images
      converts without an error, and wrongly, so give `own` a row with `flatten_order` for what reads them.
    - "linen": `params/...` and `batch_stats/...`, the variables that `init` returns; `nn.Sequential` has `layers_0`.
    - "nnx": the paths of `nnx.state(module)`; "equinox": those of the module, or of the pair that `make_with_state` returns.
    - "haiku": `linear_1/w`; of a model with running statistics `0/...` and `1/...`, the pair (params, state).
    - "gluon": names of `save_parameters`. A name that ends in `_`, as the prefix `dense0_`, is that of an exported file.

    Epsilons, paddings and activations are no parameters: compare outputs (`convert.verify`).

    Args:
        net: a layer; all that it holds is found as in `net.spec`.
        *inputs: inputs of the model, or their `jax.ShapeDtypeStruct`.
        framework: "torch", "keras", "linen", "nnx", "haiku", "equinox" or "gluon".
        names: paths of layers -> paths of modules, by patterns whose wildcards correspond one to one, for the layers inside too:
            `{"blocks/*": "encoder.layer.*"}`. The first that matches counts; `""` is the whole model. Without it names agree.
        own: rows for parameters of layers of your own, names in the framework -> paths in ptree, as in a `Table`. They come first: they may also
            replace those of a layer.
        forms: paths of layers -> the form of the layer, by patterns, where a framework has several: "transpose_kernel" of a
            `ConvTranspose` of Flax, "LSTMCell" of an nnx LSTM (else `OptimizedLSTMCell`), "groups" of a Keras convolution with
            as many groups as channels (else `DepthwiseConv`).

    Raises:
        LayerError: layers without an equal in the framework, parameters whose layout is not known, features whose order there
            is not known, names that match no layer or give two layers one module; one error lists all of them. Or inputs that
            do not fit the model.
        PatternError: a malformed pattern in `names`, `own` or `forms`.
    """
    chosen = _framework_named(framework)
    if not is_layer(net):
        raise LayerError(f"layer_table: expected a layer such as nn.Sequential(...), got {describe(net)}")
    if not inputs:
        raise LayerError(
            "layer_table: expected an input of the model after it, layer_table(net, x), as for net.spec(x)"
        )
    layer = adapted(net)
    spec = layer.spec(*inputs)
    own_table = own if isinstance(own, Table) else Table(own or {})
    module_names, layer_forms = ModuleNames(names), LayerForms(forms, chosen)
    covered = [pattern for row in own_table.rows for pattern in row.targets]
    is_pair = chosen.keeps_statistics_apart and layer._keeps_statistics()
    walk = Walk(chosen, module_names, layer_forms, DataFlow(layer, spec, inputs), covered, is_pair)
    found = [*walk.rows(layer, spec)]
    rows = _without_repeated_names([row for row in found if isinstance(row, Row)], spec)
    problems = [problem for problem in found if isinstance(problem, str)]
    problems += [*module_names.problems(), *layer_forms.problems(), *_given_twice(rows)]
    if problems:
        raise LayerError(f"layer_table: no table between {chosen.title} and this model:\n{lines(problems)}")
    return own_table | Table.of_rows(rows)


def _framework_named(name: str) -> Framework:
    if isinstance(name, str) and name in FRAMEWORKS:
        return FRAMEWORKS[name]
    if name == "flax":
        raise ValueError('layer_table: Flax has two kinds of modules: framework="linen" or framework="nnx"')
    raise ValueError(
        f"layer_table: no framework {quoted(name)}, only {quoted_names(FRAMEWORKS)}.{suggestion(str(name), FRAMEWORKS)}"
    )


def _without_repeated_names(rows: Sequence[Row], spec: Tree) -> list[Row]:
    """Drop the rows of a shared layer's second place, where `names` gives both places one module."""
    tied = {*aliases(spec)}
    taken: set[NamePattern] = set()
    kept: list[Row] = []
    for row in rows:
        is_tied = bool(row.targets) and all(target.path in tied for target in row.targets)
        if is_tied and taken.issuperset(row.sources):
            continue
        taken.update(row.sources)
        kept.append(row)
    return kept


def _given_twice(rows: Iterable[Row]) -> list[str]:
    """A sentence for each name that two rows take."""
    first: dict[NamePattern, Row] = {}
    problems: list[str] = []
    for row in rows:
        for source in row.sources:
            other = first.setdefault(source, row)
            if other is not row:
                shown = " and ".join(quoted_names(target.text for target in each.targets) for each in (other, row))
                problems.append(f"{source!r} would be {shown}: give them modules of their own in names=")
    return problems
