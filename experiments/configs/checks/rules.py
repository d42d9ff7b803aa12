"""Kinds of ranges that fields of a config may have: a test, and the range in words."""

import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple


class Rule(NamedTuple):
    """A range of values.

    Attributes:
        holds: whether a value lies in it.
        range: what a value must be, in words.
    """

    holds: Callable[[Any], bool]
    range: str

    def __or__(self, other: "Rule") -> "Rule":
        return Rule(lambda x: self.holds(x) or other.holds(x), f"{self.range}, or {other.range}")


def whole(low: int, high: int | None = None) -> Rule:
    """Whole numbers from `low` on, to `high`."""
    words = f"from {low} to {high}" if high is not None else f"of {low} or more"

    def holds(value):
        return _is_whole(value) and low <= value and (high is None or value <= high)

    return Rule(holds, f"a whole number {words}")


def number(low: float, high: float = math.inf, *, without: str = "") -> Rule:
    """Finite numbers from `low` to `high`, `without` "low" or "high", the end itself."""

    def holds(value):
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        inside = low <= value <= high and math.isfinite(value)
        return inside and value != {"low": low, "high": high}.get(without)

    if high == math.inf:
        return Rule(holds, f"above {low:g}" if without == "low" else f"{low:g} or more")
    ends = f"{'(' if without == 'low' else '['}{low:g}, {high:g}{')' if without == 'high' else ']'}"
    return Rule(holds, f"a number in {ends}")


def one_of(*names: str) -> Rule:
    """One of some names."""
    return Rule(lambda x: isinstance(x, str) and x in names, f"one of {', '.join(names)}")


def each(rule: Rule, least: int = 0, most: float = math.inf) -> Rule:
    """Sequences whose entries all lie in a range, with so many entries at the least and most."""
    entry = rule.range.removeprefix("a ")
    many = f", {least}{'' if most == least else ' or more'} of them" if least else ""

    def holds(value):
        fits = isinstance(value, list | tuple) and least <= len(value) <= most
        return fits and all(map(rule.holds, value))

    return Rule(holds, f"a tuple in which each is a {entry}{many}")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_pattern(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(re.compile(value))
    except re.error:
        return False


NONE = Rule(lambda x: x is None, "None")
YES_OR_NO = Rule(lambda x: isinstance(x, bool), "True or False")
PATTERN = Rule(_is_pattern, "a regular expression over paths of parameters, as 'head/.*'")
DEPTHS = {
    "resnet_cifar": Rule(
        lambda x: _is_whole(x) and x >= 8 and x % 6 == 2, "6 n + 2: 8, 14, 20, 32, 44, 56, …"
    ),
    "resnet_imagenet": Rule(lambda x: x in (50, 101, 152), "50, 101 or 152"),
}
"""Name of a network to the depths that it may have."""


def first_not_finite(value: Any) -> float | None:
    """The first entry of a value that is NaN or infinite, if there is one."""
    values = value if isinstance(value, list | tuple) else [value]
    return next((x for x in values if isinstance(x, float) and not math.isfinite(x)), None)
