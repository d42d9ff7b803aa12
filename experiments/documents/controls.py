"""The tables of the controls: what optimal transport adds to other ways of training a head."""

import itertools

import numpy as np
from rich.table import Table

from experiments.documents.best_cells import best_cells
from experiments.documents.captions import epochs_of, origins
from experiments.documents.markdown import spread
from experiments.documents.markdown import table as markdown_table
from experiments.documents.repeated import repeated
from experiments.studies.controls.grid import BASES, META_USES, TRANSPORTS

CONTROLS = """From one first stage of cross-entropy a seed, the backbone frozen and its features
kept, the head is trained with every combination of a base, a use of the meta set and an OT step,
by `python -m experiments.controls`. Every cell has the same optimiser, batches, epochs. *Released*
is the OT step of the authors' program (raw weights, three unrolled Sinkhorn iterations), here
against class means of features in place of means of inputs, and in a mean of losses; *paper* is the
text's, *global* the closed form over the training set. In brackets: the difference from the cell
without OT in its row, seed by seed, with its standard deviation. The weights of *released* start as
effective-number class weights: beside cross-entropy its difference is that of these weights and of
OT, and what OT adds to them is seen against class-balanced without OT."""

MEANS = """All settings beside each other: mean over the five bases of the test error, held-out
selection, and of the difference that OT makes."""

ISOLATES_BASE = {
    "ce": "the head as it is, trained on",
    "cb": "class weights by the effective number",
    "la": "the class prior taken from the logits of the row of cross-entropy after training",
    "bs": "the class prior put into the loss",
    "crt": "class-balanced draws for a new head",
}
ISOLATES_META = {
    "none": "the meta set serves OT alone",
    "merged": "what the meta examples give as further training data",
    "ten": "what they give with a weight of ten in the objective, as in the authors' program",
}
SELECTIONS = {"best_held_out": "held-out", "last": "last epoch", "best_test": "best test"}


def controls_parts(records: list[dict]) -> list[str]:
    """The tables of the last record of each setting; nothing where there are no records."""
    if not records:
        return []
    settings: dict[tuple, list[dict]] = {}
    for record in records:
        at = _name(record), record["imbalance_factor"], epochs_of(record["config"])
        settings.setdefault(at, []).append(record)
    parts = ["## Controls: what optimal transport adds", CONTROLS, MEANS]
    parts.append(_means([of_setting[-1] for of_setting in settings.values()]))
    for of_setting in settings.values():
        first, *tables = _setting_parts(of_setting[-1])
        again = repeated(of_setting, SELECTIONS)
        parts += [first, *([again] if again else []), *tables]
    return parts


def _setting_parts(record: dict) -> list[str]:
    """The tables of one record of `experiments.controls`."""
    seeds, cells, selections = len(record["seeds"]), record["cells"], _selections(record)
    head = record["config"]["head.epochs"]
    parts = [
        f"### Controls: {_name(record)}, imbalance factor {record['imbalance_factor']:g}",
        f"{origins([record])} {seeds} seed{'s' if seeds > 1 else ''}; "
        f"{epochs_of(record['config'])} epochs of the first stage, {head} of the head; "
        f"{len(cells)} cells in {record['seconds']:.0f} s.",
    ]
    parts += [best] if (best := best_cells(cells)) else []
    for number, which in enumerate(selections):
        header = ["base", "meta set", *TRANSPORTS.values()]
        rows = []
        for base, meta in itertools.product(BASES, META_USES):
            errors = [np.array(cells[f"{base}/{meta}/{ot}"][which]) for ot in TRANSPORTS]
            row = [BASES[base], META_USES[meta], *_with_differences(errors)]
            if number == 0:
                row.append(f"{ISOLATES_BASE[base]}; {ISOLATES_META[meta]}")
            rows.append(row)
        if number == 0:
            header.append("what the row isolates")
        parts += [f"Test error, {SELECTIONS[which]}:", markdown_table(header, rows)]
    return parts


def _name(record: dict) -> str:
    """The data set, and the encoder where it is seen as features of one."""
    return (
        f"{record['dataset']} ({record['encoder']})" if "encoder" in record else record["dataset"]
    )


def _selections(record: dict) -> list[str]:
    """The selections of an epoch that a record has, the one that counts first."""
    held_out = "best_held_out" in next(iter(record["cells"].values()))
    return [which for which in SELECTIONS if held_out or which != "best_held_out"]


def _means(records: list[dict]) -> str:
    """A table of means over the bases, of a record a setting."""
    rows = []
    for record in records:
        cells, which = record["cells"], _selections(record)[0]
        about = [_name(record), f"{record['imbalance_factor']:g}", epochs_of(record["config"])]
        if which != "best_held_out":
            about[0] += f", {SELECTIONS[which]}"
        for meta, title in META_USES.items():
            means = [
                np.mean([cells[f"{base}/{meta}/{ot}"][which] for base in BASES], axis=0)
                for ot in TRANSPORTS
            ]
            rows.append([*about, str(len(record["seeds"])), title, *_with_differences(means)])
    header = ["data set", "imbalance factor", "epochs of the first stage", "seeds", "meta set"]
    return markdown_table([*header, *TRANSPORTS.values()], rows)


def _with_differences(errors: list[np.ndarray]) -> list[str]:
    plain, *others = errors
    return [
        spread(plain, 1),
        *(f"{spread(e, 1)} ({spread(e - plain, 1, sign=True)})" for e in others),
    ]


def shown_table(results: dict, which: str) -> Table:
    """Test errors in percent for a terminal, mean and standard deviation over the seeds."""
    shown = Table(title=f"Test error (%), {which.replace('_', ' ')}")
    for name in ("base", "meta set", *TRANSPORTS.values()):
        shown.add_column(name)
    for base, base_name in BASES.items():
        for meta, meta_name in META_USES.items():
            errors = [results[f"{base}/{meta}/{ot}"][which] for ot in TRANSPORTS]
            shown.add_row(base_name, meta_name, *(spread(e, 1) for e in errors))
    return shown
