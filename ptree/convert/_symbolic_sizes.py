"""Say what to write where a function does with a symbolic size what JAX cannot do, beside JAX's own error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

try:
    from jax.errors import InconclusiveDimensionOperation
except ImportError:  # JAX 0.9
    from jax.core import InconclusiveDimensionOperation

_SIZE = "_DimExpr"
"""JAX's class of symbolic sizes, by which its errors call them."""

SAY_MORE = (
    "Say more about the symbolic size, as in jax.export.symbolic_shape('batch', constraints=['batch >= 4']) or"
    " symbolic_shape('8*n'), or give it as a number"
)


@contextmanager
def hint_at_symbols() -> Iterator[None]:
    """Trace a function inside of this: errors of symbolic sizes get a note with what to write."""
    try:
        yield
    except InconclusiveDimensionOperation as error:
        error.add_note(f"{SAY_MORE}.")
        raise
    except TypeError as error:
        if _SIZE in str(error):
            error.add_note(
                "A size of an input is symbolic, and this line needs a whole number, as len(x), int(...) and range(...) do. Write"
                " x.shape[0] for len(x), or -1 for one size of a reshape; or give the input a fixed size."
            )
        raise
