"""PyTorch's pickles of tensors, read without calling, importing or building anything.

A pickle is a program. Here its instructions are taken one by one from the standard library's
`pickletools`, which only parses, and those that a file of tensors needs are carried out on dicts,
lists, tuples, numbers and texts. Names of functions stand for themselves: a call makes a record of
where a tensor lies.
"""

import io
import pickletools
from typing import Any

from otrw_jax.models.weights.records import (
    Name,
    Refused,
    Storage,
    Unread,
    allowed_name,
    checked_key,
    of_type,
    result_of,
    storage_of,
)

MOST_INSTRUCTIONS = 5_000_000
"""A network has about 25 for each of its tensors."""
_EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_NUMBERS = ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT")
_TEXTS = ("BINUNICODE", "BINSTRING", "SHORT_BINSTRING")


def read_pickle(stream: io.BytesIO) -> tuple[Any, dict[str, Storage]]:
    """What the next pickle of a stream holds, its tensors as `Tensor`, and their storages by key.

    Args:
        stream: of bytes in memory, so that no length that the pickle states is believed; left
            behind the pickle.

    Raises:
        Refused: it is cut off or not well-formed, or needs more than tensors do.
    """
    machine = _Machine()
    try:
        for number, (code, argument, _) in enumerate(pickletools.genops(stream)):
            if number == MOST_INSTRUCTIONS:
                raise Refused(f"its pickle has more than {MOST_INSTRUCTIONS} instructions.")
            machine.do(code.name, argument)
        return machine.stack.pop(), machine.storages
    except Refused:
        raise
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise Refused("its pickle is cut off or not well-formed.") from error


class _Machine:
    """The stack on which a pickle's instructions work, and what they have made so far."""

    def __init__(self):
        self.stack, self.marks, self.memo, self.storages = [], [], {}, {}

    def do(self, code: str, argument: Any) -> None:
        """Carries out one instruction, or refuses it."""
        if code in _NUMBERS or code in _TEXTS:
            self.stack.append(argument)
        elif code in _CONSTANTS:
            self.stack.append(_CONSTANTS[code])
        elif code in _EMPTY:
            self.stack.append(_EMPTY[code]())
        elif code in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.stack[-1]
        elif code in ("BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif code == "MARK":
            self.marks.append(len(self.stack))
        elif code == "GLOBAL":
            self.stack.append(allowed_name(argument))
        elif code in _WORK:
            _WORK[code](self)
        elif code not in ("PROTO", "STOP"):
            raise Refused(f"its pickle has the instruction {code}, which tensors do not need.")

    def _taken(self) -> list:
        """What lies above the last mark."""
        at = self.marks.pop()
        items = self.stack[at:]
        del self.stack[at:]
        return items

    def _tuple(self):
        self.stack.append(tuple(self._taken()))

    def _tuple1(self):
        self.stack[-1:] = [(self.stack[-1],)]

    def _tuple2(self):
        self.stack[-2:] = [(self.stack[-2], self.stack[-1])]

    def _tuple3(self):
        self.stack[-3:] = [(self.stack[-3], self.stack[-2], self.stack[-1])]

    def _append(self):
        self._extend([self.stack.pop()])

    def _appends(self):
        self._extend(self._taken())

    def _extend(self, items):
        of_type(self.stack[-1], list, "appends to").extend(items)

    def _setitem(self):
        value = self.stack.pop()
        self._update([self.stack.pop(), value])

    def _setitems(self):
        self._update(self._taken())

    def _update(self, items):
        target = of_type(self.stack[-1], dict, "sets items of")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[checked_key(key)] = value

    def _reduce(self):
        arguments = of_type(self.stack.pop(), tuple, "calls with")
        self.stack[-1] = result_of(of_type(self.stack[-1], Name, "calls").name, arguments)

    def _build(self):
        """Attributes, such as the versions of modules in a state dict, are dropped."""
        self.stack.pop()
        of_type(self.stack[-1], dict | Unread, "sets attributes of")

    def _binpersid(self):
        found = storage_of(self.stack.pop())
        if self.storages.setdefault(found.key, found) != found:
            raise Refused(f"its storage {found.key[:80]!r} is described in two ways.")
        self.stack.append(found)


_WORK = {
    "TUPLE": _Machine._tuple,
    "TUPLE1": _Machine._tuple1,
    "TUPLE2": _Machine._tuple2,
    "TUPLE3": _Machine._tuple3,
    "APPEND": _Machine._append,
    "APPENDS": _Machine._appends,
    "SETITEM": _Machine._setitem,
    "SETITEMS": _Machine._setitems,
    "REDUCE": _Machine._reduce,
    "BUILD": _Machine._build,
    "BINPERSID": _Machine._binpersid,
}
