"""From labels as they are stored, numbers or names, to classes 0 to K - 1."""

import re

import numpy as np
from jaxtyping import Int32, Shaped

from otrw_jax.checks import some
from otrw_jax.data.feature_files import ReadArray

Labels = dict[str, ReadArray]


def classes_of(
    labels: Labels, listed: ReadArray | None
) -> tuple[tuple[str, ...], dict[str, Int32[np.ndarray, "n"]], tuple[str, ...]]:
    """Numbers the classes.

    With a list of class names, labels are these names or places in it, from 0 or from 1. Without,
    the classes are the values that the training labels have, sorted: whole numbers, or names.
    Numbers other than 0 to K - 1, such as those from 1 or with gaps, are numbered anew in their
    order, and stay the names of the classes. Text is read as numbers if all of it is whole numbers
    of 18 digits at most, as they are written: "01" is a name.

    Args:
        labels: of each part, `[n]` or `[n, 1]`; the training part among them.
        listed: names in the order of the classes, or None.

    Returns:
        The names of the K classes, each part's classes, and what was decided.

    Raises:
        ValueError: labels are neither whole numbers nor names, or of two kinds; a part has a class
            without training example; the meta part lacks a class; there is one class only; or the
            list does not fit the labels.
    """
    notes: list[str] = []
    plain = {part: _plain(stored, notes) for part, stored in labels.items()}
    names = None if listed is None else _checked_list(listed)
    kinds = {part: values.dtype.kind for part, values in plain.items()}
    if set(kinds.values()) == {"U"} and not _are_names(plain, names):
        plain = {part: values.astype(np.int64) for part, values in plain.items()}
        notes.append("labels are whole numbers written as text, and read as numbers.")
    elif len(set(kinds.values())) > 1:
        texts = [labels[part].where for part, kind in kinds.items() if kind == "U"]
        numbers = [labels[part].where for part, kind in kinds.items() if kind != "U"]
        raise ValueError(
            f"{texts[0]} has labels that are names and {numbers[0]} labels that are numbers; write "
            "all of one kind."
        )
    values = np.unique(plain["train"])
    if names is None or listed is None:
        names = tuple(map(str, values))
        if values.dtype.kind == "U":
            notes.append(f"the {len(values)} classes are in the order of their names.")
        elif not np.array_equal(values, np.arange(len(values))):
            notes.append(
                f"labels are {some(values)}; they are numbered 0 to {len(values) - 1} in their "
                "order, and name the classes."
            )
    else:
        values = _listed_values(labels, plain, names, listed.where, notes)
    _check_classes(labels, plain, values, names)
    numbered = {p: np.searchsorted(np.sort(values), found) for p, found in plain.items()}
    order = np.argsort(values)
    return names, {p: order[at].astype(np.int32) for p, at in numbered.items()}, tuple(notes)


def _plain(stored: ReadArray, notes: list[str]) -> Shaped[np.ndarray, "n"]:
    """A vector of int64 or of text."""
    values, where = np.asarray(stored.values), stored.where
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise ValueError(
            f"{where}: labels have shape {values.shape}; give one for each example, [n] (of "
            "one-hot rows, the argmax)."
        )
    match values.dtype.kind:
        case "i" | "b":
            return values.astype(np.int64)
        case "u":
            if len(values) and values.max() > np.iinfo(np.int64).max:
                raise ValueError(f"{where}: a label is {values.max()}; numbers must fit 64 bits.")
            return values.astype(np.int64)
        case "f":
            foreign = ~(np.isfinite(values) & (values == np.floor(values)))
            if foreign.any():
                row = int(np.argmax(foreign))
                raise ValueError(
                    f"{where}: the label of row {row} is {values[row]}; labels are whole numbers "
                    "or names."
                )
            far = np.abs(values) >= 2.0**63
            if far.any():
                raise ValueError(f"{where}: a label is {values[far][0]}; numbers must fit 64 bits.")
            notes.append(f"{where}: labels are {values.dtype}, all of them whole numbers.")
            return values.astype(np.int64)
        case "U":
            return values
        case "S":
            try:
                return np.char.decode(values, "utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(f"{where}: labels are bytes that are not UTF-8.") from error
    raise ValueError(f"{where}: labels are {values.dtype}; give whole numbers or names.")


def _are_names(plain, names) -> bool:
    """Whether text is to be taken for names, in place of numbers."""
    seen = {str(value) for values in plain.values() for value in np.unique(values)}
    if names is not None and seen <= set(names):
        return True
    return not all(re.fullmatch(r"0|-?[1-9][0-9]{0,17}", text) for text in seen)


def _checked_list(listed: ReadArray) -> tuple[str, ...]:
    values = np.asarray(listed.values)
    if values.ndim != 1 or values.dtype.kind != "U":
        raise ValueError(
            f"{listed.where}: class names are {values.dtype} of shape {values.shape}; give a "
            "vector of text."
        )
    if not len(values):
        raise ValueError(f"{listed.where} has no name; give one for each class, or delete it.")
    names = tuple(name.strip() for name in values.tolist())
    twice = sorted({name for name in names if names.count(name) > 1})
    if "" in names or twice:
        what = f"{twice[0]!r} twice" if twice and twice[0] else "an empty name"
        raise ValueError(f"{listed.where} has {what}; give each class a name of its own.")
    return names


def _listed_values(labels, plain, names, where, notes) -> np.ndarray:
    """The stored values of the listed classes, in the order of the list."""
    if plain["train"].dtype.kind == "U":
        return np.array(names)
    every = np.concatenate(list(plain.values()))
    first = 1 if len(every) and every.min() >= 1 and every.max() == len(names) else 0
    for part, values in plain.items():
        foreign = (values < first) | (values >= first + len(names))
        if foreign.any():
            raise ValueError(
                f"{labels[part].where}: a label is {values[foreign][0]}, and {where} has "
                f"{len(names)} names; labels are places in it, 0 to {len(names) - 1} or 1 to "
                f"{len(names)}."
            )
    if first:
        notes.append(f"labels run from 1 to {len(names)}; label 1 is the first of {where}.")
    return np.arange(first, first + len(names))


def _check_classes(labels, plain, values, names) -> None:
    absent = ~np.isin(values, plain["train"])
    if absent.any():
        raise ValueError(
            f"{labels['train'].where}: {absent.sum()} of {len(names)} classes have no training "
            f"example ({some(np.array(names)[absent])}); give them some, or strike them from the "
            "class names."
        )
    for part, found in plain.items():
        foreign = ~np.isin(found, values)
        if foreign.any():
            raise ValueError(
                f"{labels[part].where}: {foreign.sum()} examples are of classes without training "
                f"example ({some(np.unique(found[foreign]))}); leave these out, or give training "
                "examples of their classes."
            )
    if len(names) < 2:
        raise ValueError(
            f"{labels['train'].where}: all examples are of one class, {names[0]}; a classifier "
            "needs two or more."
        )
    if "meta" in plain and not np.isin(values, plain["meta"]).all():
        lacking = np.array(names)[~np.isin(values, plain["meta"])]
        raise ValueError(
            f"{labels['meta'].where}: {len(lacking)} of {len(names)} classes have no meta example "
            f"({some(lacking)}); a meta set has some of every class."
        )
