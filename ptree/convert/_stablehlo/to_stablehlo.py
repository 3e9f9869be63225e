"""to_stablehlo: a function as a program that any process with JAX runs, for several kinds of devices at once, and its weights
as a safetensors file beside it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jax
from jax import export
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

from ..._edit import leaves, replace_leaves
from ..._errors import FileError
from ..._stored.drafts import draft
from ..._stored.locations import checked_path, refuse_other_kinds
from ..._stored.operating_system import write_all
from ..._tree import Leaf, PyTree
from ..._words import describe, in_bytes, lines, listed, quoted
from ...files._save import SavePlan, bytes_of
from .._symbolic_sizes import SAY_MORE, hint_at_symbols
from .containers import in_containers_of, in_plain_containers
from .refusals import callback_problem, capture_problem
from .stored_arrays import Spec, Weight, argument_specs, dtype_problem, is_array, traced_spec, weight_of
from .weights_file import checked_weights, planned_weights

try:
    from jax.errors import InconclusiveDimensionOperation
except ImportError:  # JAX 0.9
    from jax.core import InconclusiveDimensionOperation

_SUFFIX = ".stablehlo"
_PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


@dataclass(frozen=True, repr=False)
class StableHlo:
    """A program that `to_stablehlo` wrote: its files, and what it takes and returns.

    >>> import tempfile, jax.numpy as jnp
    >>> from ptree import convert
    >>> path = tempfile.mkdtemp() + "/double.stablehlo"
    >>> written = convert.to_stablehlo(lambda params, x: params["w"] * x, {"w": jnp.ones(2)}, jnp.ones(2), path=path)
    >>> written.platforms, list(written.arrays)
    (('cpu', 'cuda', 'tpu'), ['w'])
    """

    path: str
    """The file of the program."""
    weights: str
    """The safetensors file whose arrays are the first argument."""
    size: int
    """Bytes of the program, without weights."""
    platforms: tuple[str, ...]
    """The platforms that it runs on, such as "cpu"."""
    arrays: Mapping[str, Spec] = field(hash=False)
    """The first argument: name in the file -> shape and dtype."""
    inputs: PyTree = field(hash=False)
    """The further arguments: a tuple of shapes and dtypes."""
    outputs: PyTree = field(hash=False)
    """What it returns: a tree of shapes and dtypes."""

    __module__ = "ptree.convert"

    def __repr__(self) -> str:
        platforms = ", ".join(self.platforms)
        name, weights = os.path.basename(self.path), os.path.basename(self.weights)
        count = f"{len(self.arrays)} array{'s' * (len(self.arrays) != 1)}"
        return f"<StableHLO {name!r}, {in_bytes(self.size)}, for {platforms}; {count} in {weights!r}>"


def to_stablehlo(
    f: Callable[..., PyTree],
    params: PyTree,
    *inputs: PyTree,
    path: str | os.PathLike[str],
    platforms: Sequence[str] = ("cpu", "cuda", "tpu"),
    weights: str | os.PathLike[str] | None = None,
    max_constants: int | str = "16MiB",
    vjp_order: int = 0,
) -> StableHlo:
    """Write the function `f(params, *inputs)` as a program that any process with JAX runs, without ptree and without its source.

    >>> import tempfile, jax, jax.numpy as jnp, ptree as pt
    >>> from jax import export
    >>> from ptree import convert, nn
    >>> net = nn.Sequential(nn.Dense(8), jax.nn.relu, nn.Dense(1))
    >>> (batch,) = export.symbolic_shape("batch")
    >>> x = jax.ShapeDtypeStruct((batch, 4), jnp.float32)                   # of any batch size
    >>> params = net.init(jax.random.key(0), jnp.ones((1, 4)))
    >>> file = tempfile.mkdtemp() + "/net.stablehlo"
    >>> convert.to_stablehlo(net, params, x, path=file)
    <StableHLO 'net.stablehlo', ... KiB, for cpu, cuda, tpu; 4 arrays in 'net.safetensors'>

    In another process, with jax, flatbuffers and safetensors:

    >>> from pathlib import Path
    >>> from safetensors.flax import load_file
    >>> program = export.deserialize(bytearray(Path(file).read_bytes()))
    >>> arrays = load_file(file.replace(".stablehlo", ".safetensors"))      # {"0/kernel": ..., "0/bias": ..., ...}
    >>> program.call(arrays, jnp.ones((5, 4))).shape
    (5, 1)

    The weights are not in the program: its first argument is the flat dict that a reader of safetensors gives, so the file
    can be replaced by another with the same names and shapes. A tied leaf is in it once, a stack as one array, a typed PRNG key as its
    key words; static leaves, such as the activation function of a module, are in the program. In inputs and outputs dicts,
    lists and tuples stay; any other container, such as a Tree or a named tuple, is a flat dict there, path -> leaf.

    Both files are written at once and whole, first the weights and then the program; those of an earlier export are replaced.
    A safetensors file that no export wrote is not: `weights=` uses it. Nothing is written if the function cannot be exported. Arguments that `f` donates are not donated by the program.

    Args:
        f: `f(params, *inputs)`, jitted or not: a layer, or a function of linen, nnx, Haiku, Equinox.
        params: any pytree of arrays. With `weights` a spec will do.
        inputs: arrays, or `jax.ShapeDtypeStruct`; sizes may be symbolic, all from one call of `jax.export.symbolic_shape`.
        path: the program; without `weights`, `net.stablehlo` has its weights in `net.safetensors`, which is written too.
        platforms: "cpu", "cuda", "rocm" or "tpu". None of them need be there.
        weights: a safetensors file, or the index of shards, that already holds the leaves of `params` under their paths. It is
            checked and left as it is; values are compared where `params` has them. The program takes all arrays in it.
        max_constants: the most bytes, or text such as "1GiB", of arrays that `f` captured, such as tables of positions. They are
            part of the program, and to write them takes several times their memory.
        vjp_order: how often the program can be differentiated.

    Returns:
        What was written: `path`, `weights`, `size`, `platforms`, `arrays`, `inputs`, `outputs`.

    Raises:
        FileError: `f` calls back into Python or captured large arrays or its own parameters; sizes of which JAX must know more;
            leaves that a file cannot hold; a file of weights that no export wrote, or `path` itself as `weights`.
        StructureError: the file of `weights` does not hold `params`.
    """
    file = Path(checked_path(path, "to_stablehlo(..., path=path)"))
    file = Path(os.path.realpath(file.parent)) / file.name  # a link at the path itself is replaced, as by `save`
    weights_file = (
        _weights_file(file) if weights is None else Path(checked_path(weights, "to_stablehlo(..., weights=path)"))
    )
    refuse_other_kinds(file)
    _check_platforms(platforms)
    arrays = {name: leaf for name, leaf in leaves(params) if is_array(leaf)}
    _check_dtypes(file, arrays)
    input_specs = _input_specs(file, inputs)
    save_plan: SavePlan | None = None
    if weights is None:
        save_plan = planned_weights(weights_file, params, arrays)
        stored = {name: leaf.stored for name, leaf in save_plan.content.leaves.items()}
    else:
        stored = checked_weights(str(weights_file), str(file), arrays)
    made_of = {name: weight_of(leaf, stored[name]) for name, leaf in arrays.items()}
    specs = replace_leaves(params, {name: weight.spec for name, weight in made_of.items()})
    closed, outputs = _traced(file, f, specs, input_specs)
    _check_traced(file, closed, arrays, 0 if max_constants == 0 else bytes_of(max_constants))
    taken = argument_specs(stored)
    plain_inputs = in_plain_containers(input_specs)
    program = _program(closed, made_of, input_specs, outputs)
    data = _serialized(file, program, (taken, *plain_inputs), tuple(platforms), vjp_order)
    if save_plan is not None:
        save_plan.write(show_bar=True)
    _write(file, data)
    return StableHlo(str(file), str(weights_file), len(data), tuple(platforms), taken, plain_inputs, outputs)


# -------------------------------------------------------------------------------- checks


def _weights_file(file: Path) -> Path:
    if file.suffix == ".safetensors":
        raise FileError(
            f"cannot write the program {str(file)!r}: its weights get this name. Call it {file.stem + _SUFFIX!r}"
        )
    return file.with_name(file.name.removesuffix(_SUFFIX) + ".safetensors")


def _check_platforms(platforms: Sequence[str]) -> None:
    expected = "platforms are among 'cpu', 'cuda', 'rocm' and 'tpu'"
    if isinstance(platforms, str):
        raise FileError(f"{expected}, as a tuple: platforms=({platforms!r},); got the text {quoted(platforms)}")
    wrong = [name for name in platforms if name not in _PLATFORMS]
    if wrong or not platforms:
        raise FileError(f"{expected}; got {listed(map(str, platforms))}")


def _check_dtypes(file: Path, arrays: Mapping[str, Leaf]) -> None:
    problems = [dtype_problem(name, leaf) for name, leaf in arrays.items()]
    problems = [problem for problem in problems if problem]
    if problems:
        raise _cannot(file, lines(problems, between="; "))


def _check_traced(file: Path, closed: ClosedJaxpr, arrays: Mapping[str, Leaf], most_constants: int) -> None:
    """Refuse what no program can hold, or should not."""
    problems = (callback_problem(closed), capture_problem(closed, arrays, most_constants))
    problems = [problem for problem in problems if problem]
    if problems:
        raise _cannot(file, lines(problems, between="; "))


def _cannot(file: Path, problem: str) -> FileError:
    return FileError(f"cannot write the program {str(file)!r}: {problem}")


def _input_specs(file: Path, inputs: tuple[PyTree, ...]) -> tuple[PyTree, ...]:
    static = _static(inputs)
    if static:
        problem = f"inputs are arrays, and these are none: {static}. Capture them in f, as functools.partial does"
        raise _cannot(file, problem)
    return jax.tree.map(traced_spec, inputs)


def _static(tree: PyTree) -> str:
    """List what is no array in inputs or outputs; "" if there is nothing."""
    found = [f"{path}: {describe(leaf)}" for path, leaf in leaves(tree) if not is_array(leaf)]
    return listed(found) if found else ""


def _traced(
    file: Path, f: Callable[..., PyTree], specs: PyTree, inputs: tuple[PyTree, ...]
) -> tuple[ClosedJaxpr, PyTree]:
    """Trace the function over parameters of these specs: its equations, and its outputs in plain containers."""
    arrays = {name: leaf for name, leaf in leaves(specs) if is_array(leaf)}

    def with_static(values: dict[str, Leaf], *inputs: PyTree) -> PyTree:
        outputs = f(replace_leaves(specs, values), *inputs)
        static = _static(outputs)
        if static:
            raise _cannot(file, f"f returns arrays, and these are none: {static}. Leave them out")
        return in_plain_containers(outputs)

    try:
        with hint_at_symbols():
            traced = jax.jit(with_static).trace(arrays, *inputs)
    except InconclusiveDimensionOperation as error:
        raise _cannot(file, _about_sizes(error)) from error
    return traced.jaxpr, jax.tree.map(lambda out: Spec(out.shape, out.dtype), traced.out_info)


def _about_sizes(error: Exception) -> str:
    first_line = str(error).partition("\n")[0].removesuffix(".")
    return f"{first_line}. {SAY_MORE}"


def _program(
    closed: ClosedJaxpr, made_of: Mapping[str, Weight], input_specs: tuple[PyTree, ...], outputs: PyTree
) -> Callable[..., PyTree]:
    """The function that is exported: of the arrays of the file, and inputs in plain containers."""
    run = jaxpr_as_fun(closed)
    structure = jax.tree.structure(outputs)

    def program(arrays: Mapping[str, jax.Array], *plain_inputs: PyTree) -> PyTree:
        values = {name: weight.leaf_of(arrays[name]) for name, weight in made_of.items()}
        # a flat dict has its leaves in another order than a named tuple
        inputs = in_containers_of(plain_inputs, like=input_specs)
        return jax.tree.unflatten(structure, run(*jax.tree.leaves((values, *inputs))))

    return program


def _serialized(
    file: Path,
    program: Callable[..., PyTree],
    arguments: tuple[PyTree, ...],
    platforms: tuple[str, ...],
    vjp_order: int,
) -> bytes:
    try:
        exported = export.export(jax.jit(program), platforms=platforms)(*arguments)
        return bytes(exported.serialize(vjp_order=vjp_order))
    except ImportError as error:
        raise ImportError("to_stablehlo needs flatbuffers: pip install 'ptree-jax[stablehlo]'") from error
    except InconclusiveDimensionOperation as error:
        raise _cannot(file, _about_sizes(error)) from error
    except KeyError as error:  # JAX looks the dtype up in a table
        raise _cannot(file, f"jax.export cannot write {error.args[0]!r} of an input or output. Cast it in f") from error
    except NotImplementedError as error:
        raise _cannot(file, f"{error}. Choose among platforms={platforms}, or compute it in another way") from error
    except ValueError as error:
        raise _cannot(file, _about_export(error)) from error


def _about_export(error: ValueError) -> str:
    first_line = str(error).partition("\n")[0].removesuffix(".")
    if "symbolic scopes" in first_line:
        return "its symbolic sizes are from several calls. Make them in one: batch, length = jax.export.symbolic_shape('batch, length')"
    return first_line


def _write(file: Path, data: bytes) -> None:
    with draft(file) as descriptor:
        write_all(descriptor, data, 0)
