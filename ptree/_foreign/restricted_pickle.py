"""RestrictedPickle: a reader of pickles that makes plain containers, numbers and strings, and calls nothing that a pickle names.

Python's own unpickler looks names up and calls what it finds; this one knows the opcodes of protocols 2 to 5, and hands the names
of functions with their arguments to one function, which may describe a tensor. Memory is bounded by the size of the pickle.
"""

from __future__ import annotations

import mmap
from abc import ABC, abstractmethod
from collections.abc import Callable
from struct import Struct
from struct import error as StructError

from .pickled_values import Global, PickledDict, PickledObject

MOST_BYTES = 1 << 28
"""Of one pickle: a checkpoint of a million tensors has about as many."""
_MOST_OBJECTS = 20_000_000
"""Containers and entries of the memo: each takes up to 100 bytes of memory for one of the pickle."""
_LONGEST_LINE = 1000
_LONGEST_NUMBER = 255  # bytes: longer ones are refused, which take for ever to write in decimals

_U16, _I32, _U32, _U64, _F64 = Struct("<H"), Struct("<i"), Struct("<I"), Struct("<Q"), Struct(">d")


class PickleError(ValueError):
    """A pickle that is damaged or that is not read; the text says why."""


class Makers(ABC):
    """What a pickle's calls and persistent ids are read as."""

    @abstractmethod
    def called(self, function: Global, args: tuple[object, ...]) -> object:
        """What a function or class of this name would give."""

    @abstractmethod
    def persistent(self, key: object) -> object:
        """What a persistent id stands for."""


class RestrictedPickle:
    """Read the pickle that begins at a byte of some data; afterwards `at` is the byte behind it.

    Raises:
        PickleError: it is damaged, has opcodes of other protocols, or would take too much memory.
    """

    def __init__(self, data: bytes | mmap.mmap, makers: Makers, at: int = 0):
        self.at = at
        self._data, self._makers = data, makers
        self._last = min(len(data), at + MOST_BYTES)
        self._stack: list[object] = []
        self._marked: list[list[object]] = []
        """The stacks below each mark."""
        self._memo: dict[int, object] = {}
        self._objects = 0

    def load(self) -> object:
        try:
            return self._run()
        except PickleError:
            raise
        except (IndexError, KeyError, TypeError, ValueError, OverflowError, StructError) as error:
            # of a stack or memo that has not what an opcode takes
            raise PickleError(f"its pickle is damaged near byte {self.at:,}") from error

    def _run(self) -> object:
        data, last, handlers = self._data, self._last, _HANDLERS
        while self.at < last:
            code = data[self.at]
            self.at += 1
            if code == _STOP:
                return self._stack.pop()
            handler = handlers.get(code)
            if handler is None:
                raise PickleError(f"its pickle has the opcode {code:#04x}, which PyTorch does not write")
            handler(self)
        if last < len(data):
            raise PickleError(f"its pickle has more than {MOST_BYTES:,} bytes, without the tensors' numbers")
        raise PickleError("its pickle is cut short")

    # ---------------------------------------------------------------------------- reading

    def _take(self, count: int) -> bytes:
        stop = self.at + count
        if stop > self._last:
            raise PickleError("its pickle is cut short")
        taken = self._data[self.at : stop]
        self.at = stop
        return taken

    def _number(self, form: Struct) -> int:
        return form.unpack(self._take(form.size))[0]

    def _line(self) -> str:
        stop = self._data.find(b"\n", self.at, min(self._last, self.at + _LONGEST_LINE))
        if stop < 0:
            raise PickleError("its pickle is cut short, or has a name of over 1,000 bytes")
        line = self._data[self.at : stop]
        self.at = stop + 1
        return line.decode("utf-8")

    def _count_object(self) -> None:
        self._objects += 1
        if self._objects > _MOST_OBJECTS:
            raise PickleError(f"its pickle makes more than {_MOST_OBJECTS:,} objects")

    def _push(self, value: object) -> None:
        self._stack.append(value)

    def _since_mark(self) -> list[object]:
        values = self._stack
        self._stack = self._marked.pop()
        return values

    # ---------------------------------------------------------------------------- the stack and the memo

    def _proto(self) -> None:
        protocol = self._take(1)[0]
        if protocol > 5:
            raise PickleError(f"its pickle is of protocol {protocol}, and Python writes 5 at most")

    def _frame(self) -> None:
        self._take(8)  # a length, which the unpickler may read ahead

    def _mark(self) -> None:
        self._count_object()
        self._marked.append(self._stack)
        self._stack = []

    def _pop(self) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._since_mark()

    def _pop_mark(self) -> None:
        self._since_mark()

    def _dup(self) -> None:
        self._push(self._stack[-1])

    def _remember(self, index: int) -> None:
        self._count_object()
        self._memo[index] = self._stack[-1]

    def _binput(self) -> None:
        self._remember(self._take(1)[0])

    def _long_binput(self) -> None:
        self._remember(self._number(_U32))

    def _memoize(self) -> None:
        self._remember(len(self._memo))

    def _binget(self) -> None:
        self._push(self._memo[self._take(1)[0]])

    def _long_binget(self) -> None:
        self._push(self._memo[self._number(_U32)])

    # ---------------------------------------------------------------------------- plain values

    def _none(self) -> None:
        self._push(None)

    def _true(self) -> None:
        self._push(True)

    def _false(self) -> None:
        self._push(False)

    def _binint(self) -> None:
        self._push(self._number(_I32))

    def _binint1(self) -> None:
        self._push(self._take(1)[0])

    def _binint2(self) -> None:
        self._push(self._number(_U16))

    def _long1(self) -> None:
        self._push(int.from_bytes(self._take(self._take(1)[0]), "little", signed=True))

    def _long4(self) -> None:
        count = self._number(_I32)
        if not 0 <= count <= _LONGEST_NUMBER:
            raise PickleError(f"its pickle has a number of {count:,} bytes")
        self._push(int.from_bytes(self._take(count), "little", signed=True))

    def _int(self) -> None:
        """A number in decimals, as Python 2 wrote those of more than 32 bits; 00 and 01 are False and True."""
        text = self._line()
        if text in ("00", "01"):
            self._push(text == "01")
        else:
            self._push(int(text))

    def _binfloat(self) -> None:
        self._push(self._number(_F64))

    def _text(self, count: int) -> None:
        self._push(self._take(count).decode("utf-8", "surrogatepass"))

    def _short_binunicode(self) -> None:
        self._text(self._take(1)[0])

    def _binunicode(self) -> None:
        self._text(self._number(_U32))

    def _binunicode8(self) -> None:
        self._text(self._number(_U64))

    def _short_binbytes(self) -> None:
        self._push(self._take(self._take(1)[0]))

    def _binbytes(self) -> None:
        self._push(self._take(self._number(_U32)))

    def _binbytes8(self) -> None:
        self._push(self._take(self._number(_U64)))

    def _short_binstring(self) -> None:
        """A text or bytes of Python 2: as latin-1, every byte is a character."""
        self._push(self._take(self._take(1)[0]).decode("latin-1"))

    def _binstring(self) -> None:
        self._push(self._take(self._number(_U32)).decode("latin-1"))

    # ---------------------------------------------------------------------------- containers

    def _empty_tuple(self) -> None:
        self._push(())

    def _tuple1(self) -> None:
        self._count_object()
        self._push((self._stack.pop(),))

    def _tuple2(self) -> None:
        self._count_object()
        second, first = self._stack.pop(), self._stack.pop()
        self._push((first, second))

    def _tuple3(self) -> None:
        self._count_object()
        third, second, first = self._stack.pop(), self._stack.pop(), self._stack.pop()
        self._push((first, second, third))

    def _tuple(self) -> None:
        self._count_object()
        values = self._since_mark()
        self._push(tuple(values))

    def _empty_list(self) -> None:
        """A list, or a set, of which the order is kept and nothing is hashed."""
        self._count_object()
        self._push([])

    def _list(self) -> None:
        self._count_object()
        values = self._since_mark()
        self._push(values)

    def _empty_dict(self) -> None:
        self._count_object()
        self._push(PickledDict())

    def _dict(self) -> None:
        self._count_object()
        values = self._since_mark()
        self._push(PickledDict())
        self._put_items(values)

    def _append(self) -> None:
        value = self._stack.pop()
        self._put_elements([value])

    def _appends(self) -> None:
        self._put_elements(self._since_mark())

    def _put_elements(self, values: list[object]) -> None:
        holder = self._stack[-1]
        if isinstance(holder, PickledObject):
            holder = holder.elements
        if not isinstance(holder, list):
            raise PickleError(f"its pickle appends to a {type(holder).__name__}")
        holder.extend(values)

    def _setitem(self) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._put_items([key, value])

    def _setitems(self) -> None:
        self._put_items(self._since_mark())

    def _put_items(self, flat: list[object]) -> None:
        holder = self._stack[-1]
        if isinstance(holder, PickledObject):
            holder = holder.items
        if not isinstance(holder, PickledDict) or len(flat) % 2:
            raise PickleError(f"its pickle puts items into a {type(holder).__name__}")
        holder.flat.extend(flat)

    # ---------------------------------------------------------------------------- what it names

    def _global(self) -> None:
        module = self._line()
        self._push(Global(module, self._line()))

    def _stack_global(self) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise PickleError("its pickle has a name that is no text")
        self._push(Global(module, name))

    def _reduce(self) -> None:
        args, function = self._stack.pop(), self._stack.pop()
        self._call(function, args)

    def _newobj(self) -> None:
        args, kind = self._stack.pop(), self._stack.pop()
        self._call(kind, args)

    def _newobj_ex(self) -> None:
        _, args, kind = self._stack.pop(), self._stack.pop(), self._stack.pop()
        self._call(kind, args)

    def _call(self, function: object, args: object) -> None:
        self._count_object()
        if not isinstance(function, Global) or not isinstance(args, tuple):
            raise PickleError("its pickle calls something that is no function")
        self._push(self._makers.called(function, args))

    def _build(self) -> None:
        """Set the state of an object; that of a dict or a tensor, such as the versions of a state_dict's modules, is left out."""
        state, value = self._stack.pop(), self._stack[-1]
        if isinstance(value, PickledObject):
            value.state = state

    def _binpersid(self) -> None:
        self._count_object()
        self._push(self._makers.persistent(self._stack.pop()))


_STOP = ord(".")
_Handler = Callable[[RestrictedPickle], None]
_HANDLERS: dict[int, _Handler] = {
    0x80: RestrictedPickle._proto,
    0x95: RestrictedPickle._frame,
    ord("("): RestrictedPickle._mark,
    ord("0"): RestrictedPickle._pop,
    ord("1"): RestrictedPickle._pop_mark,
    ord("2"): RestrictedPickle._dup,
    ord("q"): RestrictedPickle._binput,
    ord("r"): RestrictedPickle._long_binput,
    0x94: RestrictedPickle._memoize,
    ord("h"): RestrictedPickle._binget,
    ord("j"): RestrictedPickle._long_binget,
    ord("N"): RestrictedPickle._none,
    0x88: RestrictedPickle._true,
    0x89: RestrictedPickle._false,
    ord("J"): RestrictedPickle._binint,
    ord("K"): RestrictedPickle._binint1,
    ord("M"): RestrictedPickle._binint2,
    0x8A: RestrictedPickle._long1,
    0x8B: RestrictedPickle._long4,
    ord("I"): RestrictedPickle._int,
    ord("G"): RestrictedPickle._binfloat,
    0x8C: RestrictedPickle._short_binunicode,
    ord("X"): RestrictedPickle._binunicode,
    0x8D: RestrictedPickle._binunicode8,
    ord("C"): RestrictedPickle._short_binbytes,
    ord("B"): RestrictedPickle._binbytes,
    0x8E: RestrictedPickle._binbytes8,
    0x96: RestrictedPickle._binbytes8,  # a bytearray
    ord("U"): RestrictedPickle._short_binstring,
    ord("T"): RestrictedPickle._binstring,
    ord(")"): RestrictedPickle._empty_tuple,
    0x85: RestrictedPickle._tuple1,
    0x86: RestrictedPickle._tuple2,
    0x87: RestrictedPickle._tuple3,
    ord("t"): RestrictedPickle._tuple,
    ord("]"): RestrictedPickle._empty_list,
    ord("l"): RestrictedPickle._list,
    0x8F: RestrictedPickle._empty_list,  # a set
    0x90: RestrictedPickle._appends,
    0x91: RestrictedPickle._tuple,  # a frozen set
    ord("}"): RestrictedPickle._empty_dict,
    ord("d"): RestrictedPickle._dict,
    ord("a"): RestrictedPickle._append,
    ord("e"): RestrictedPickle._appends,
    ord("s"): RestrictedPickle._setitem,
    ord("u"): RestrictedPickle._setitems,
    ord("c"): RestrictedPickle._global,
    0x93: RestrictedPickle._stack_global,
    ord("R"): RestrictedPickle._reduce,
    0x81: RestrictedPickle._newobj,
    0x92: RestrictedPickle._newobj_ex,
    ord("b"): RestrictedPickle._build,
    ord("Q"): RestrictedPickle._binpersid,
}
"""By opcode. There are none for extension codes, nor for the calls of protocol 0."""
