"""Builds docs/results.md from the records in results/, and from nothing else.

The list of the trained networks in results/networks is made of their headers likewise.

python -m experiments.report
"""

import itertools
import pathlib

import numpy as np

from experiments import network_list, published
from experiments.benchmarks.tables import spread
from experiments.benchmarks.tables import table as markdown_table
from experiments.cells import BASES, META_USES, TRANSPORTS
from experiments.cli import RECORDS, define_path, run_app
from experiments.findings import chosen, columns_with, errors, findings, protocol_of
from experiments.paired import same_epochs_rows
from experiments.published import Column
from experiments.readings import parts as readings_parts
from experiments.recipes import RECIPES
from experiments.records import read
from experiments.repeated import repeated
from experiments.tables import TABLES, published_error
from otrw_jax.files import write_text

OUT = define_path("out", "docs/results.md", "The document.")

ABOUT = """# Results

Written by `python -m experiments.report` from the records in `results/`; nothing in it is typed by
hand. Errors are top-1 errors on the test set in percent, mean ± standard deviation over seeds, each
of which has a training subset, a start and an order of its own. *Held-out* is the epoch of the last
stage with the best balanced accuracy on held-out examples, which no training sees; *last* is the
last epoch; *best test* selects by the test set itself, as many published figures do, and is given
for comparison with those alone. *Protocol* is `paper`, that of the paper's text, or, on CIFAR,
`short`: 40 epochs of 128 examples with a cosine (`experiments/configs/cifar_lt.py`). *Many*,
*medium* and *few* are accuracies of classes of more than 100, of 20 to 100 and of fewer than 20
training examples; *difference* is the held-out column less the paper's figure; *s a run* are
seconds of training and evaluation, those of seeds trained together divided by their number. Errors
that differ by less than their spread order nothing. A cell is empty where nothing was run, where
there are no such classes, or where the paper has no such row."""

SAME_EPOCHS = """Second stages at equal budgets: a row less as many further epochs of plain
cross-entropy, on the whole network (`continued`) and, where the row trains the head alone, on the
head too (`continued_head`), seed by seed, held-out selection. *Shown* is what a paired t-test at
95 % shows of the error and of the few-shot accuracy: one seed shows nothing, and of twenty
comparisons without a difference about one shows one."""

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
READINGS_TABLES = ("weight_net", "weight_net_frozen")
SELECTIONS = {"best_held_out": "held-out", "last": "last epoch", "best_test": "best test"}


def main(argv: list[str]) -> None:
    """Writes the document, and the list of the networks where there are some."""
    del argv
    folder, out = pathlib.Path(RECORDS.value), pathlib.Path(OUT.value)
    write_text(out, document(folder))
    print(f"written: {out}")
    networks = network_list.document(folder / "networks")
    if networks:
        write_text(folder / "networks" / "README.md", networks)
        print(f"written: {folder / 'networks' / 'README.md'}")


def document(folder: pathlib.Path) -> str:
    """The whole document, from the records of a folder."""
    parts = [ABOUT]
    for name, table in TABLES.items():
        records = read(folder / f"{name}.jsonl")
        if records or table.paper:
            parts.append(f"## {table.title}")
        if table.paper:
            parts += [table.note, overview(name, records), *findings(name, records)]
        if name in READINGS_TABLES and records:
            parts += [table.note, *readings_parts(records)]
        parts += _table_parts(name, records)
    controls = read(folder / "controls.jsonl")
    if controls:
        parts += ["## Controls: what optimal transport adds", CONTROLS]
        settings = {}
        for record in controls:
            at = record["dataset"], record["imbalance_factor"], _epochs(record["config"])
            settings.setdefault(at, []).append(record)
        for records in settings.values():
            first, *tables = controls_parts(records[-1])
            again = repeated(records, SELECTIONS)
            parts += [first, *([again] if again else []), *tables]
    return "\n\n".join(parts) + "\n"


def overview(name: str, records: list[dict]) -> str:
    """Every row and column of the paper's table, empty where nothing was run as it is.

    The paper's rows that none of ours stands for are quoted at the end.
    """
    columns = columns_with(name, records)
    rows = []
    for row, about in TABLES[name].rows.items():
        cells = []
        for column in columns:
            paper = published_error(name, row, column)
            ours = spread(errors(records, row, column))
            cells.append(f"{ours} ({paper:.2f})" if paper is not None else ours)
        if about.paper or any(cells):
            rows.append([f"`{row}`", *(cell.strip() for cell in cells)])
    paper, ours = TABLES[name].paper, {about.paper for about in TABLES[name].rows.values()}
    for row in published.rows_of(paper):
        if row not in ours:
            quoted = [published.error_of(paper, row, column) for column in columns]
            figures = ("" if error is None else f"({error:.2f})" for error in quoted)
            rows.append([f"{row}, quoted only", *figures])
    return markdown_table(["row", *(column.title for column in columns)], rows)


def _table_parts(name: str, records: list[dict]) -> list[str]:
    """A table for each data set and imbalance factor."""
    parts = []
    for (dataset, factor), group in _grouped(records, "dataset", "imbalance_factor"):
        rows = _rows(name, group)
        parts += [
            f"### {dataset}, imbalance factor {factor:g}",
            _provenance(group),
            markdown_table(
                [
                    "row",
                    "protocol",
                    "epochs",
                    "changed",
                    "held-out",
                    "many",
                    "medium",
                    "few",
                    "last",
                    "best test",
                    "seeds",
                    "paper",
                    "difference",
                    "s a run",
                ],
                rows,
            ),
        ]
        if less := same_epochs_rows(group):
            header = ["row", "less", "error", "few", "shown", "seeds"]
            parts += [SAME_EPOCHS, markdown_table(header, less)]
    return parts


def _rows(name: str, records: list[dict]) -> list[list[str]]:
    order = {row: at for at, row in enumerate(TABLES[name].rows)}
    known = [record for record in records if record["row"] in order]
    for record in known:
        config = {k: v for k, v in record["config"].items() if k not in ("seed", "subset_seed")}
        record["setting"] = repr([protocol_of(record), sorted(config.items())])
    known.sort(key=lambda r: (order[r["row"]], r["setting"], r["seed"]))
    rows = []
    for (row, _), group in _grouped(known, "row", "setting"):
        one = group[0]
        error = [chosen(record)["error"] for record in group]
        at = Column(one["dataset"], one["imbalance_factor"])
        paper = published_error(name, row, at)
        rows.append(
            [
                _title(name, one),
                protocol_of(one),
                _epochs(one["config"], one["recipe"]),
                ", ".join(f"{k}={v}" for k, v in one["changes"].items()),
                spread(error),
                *(
                    spread([chosen(r).get(f"{shot}_accuracy") for r in group], 1, False)
                    for shot in ("many", "medium", "few")
                ),
                spread(_values(group, "last", "error")),
                spread(_values(group, "best_test", "error")),
                str(len(group)),
                "" if paper is None else f"{paper:.2f}",
                "" if paper is None else f"{np.mean(error) - paper:+.2f}",
                f"{np.mean([r['seconds'] / r['seeds_together'] for r in group]):.0f}",
            ]
        )
    return rows


CONTROLS = """From one first stage of cross-entropy a seed, the backbone frozen and its features
kept, the head is trained with every combination of a base, a use of the meta set and an OT step,
by `python -m experiments.controls`. Every cell has the same optimiser, batches, epochs. *Released*
is the OT step of the authors' program (raw weights, three unrolled Sinkhorn iterations), here
against class means of features in place of means of inputs, and in a mean of losses; *paper* is the
text's, *global* the closed form over the training set. In brackets: the difference from the cell
without OT in its row, seed by seed, with its standard deviation. The weights of *released* start as
effective-number class weights: beside cross-entropy its difference is that of these weights and of
OT, and what OT adds to them is seen against class-balanced without OT."""


def controls_parts(record: dict) -> list[str]:
    """The tables of one record of `experiments.controls`."""
    seeds, cells = len(record["seeds"]), record["cells"]
    held_out = "best_held_out" in next(iter(cells.values()))
    selections = [s for s in SELECTIONS if held_out or s != "best_held_out"]
    head = record["config"]["head.epochs"]
    parts = [
        f"### Controls: {record['dataset']}, imbalance factor {record['imbalance_factor']:g}",
        f"{_provenance([record])} {seeds} seed{'s' if seeds > 1 else ''}; "
        f"{_epochs(record['config'])} epochs of the first stage, {head} of the head; {len(cells)} "
        f"cells in {record['seconds']:.0f} s.",
        markdown_table(["meta set", *TRANSPORTS.values()], _mean_rows(cells, selections[0])),
        f"Above: mean over the five bases of the test error ({SELECTIONS[selections[0]]}), and of "
        "the difference that OT makes.",
    ]
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


def _mean_rows(cells: dict, which: str) -> list[list[str]]:
    rows = []
    for meta, title in META_USES.items():
        means = [
            np.mean([cells[f"{base}/{meta}/{ot}"][which] for base in BASES], axis=0)
            for ot in TRANSPORTS
        ]
        rows.append([title, *_with_differences(means)])
    return rows


def _with_differences(errors: list[np.ndarray]) -> list[str]:
    plain, *others = errors
    return [
        spread(plain, 1),
        *(f"{spread(e, 1)} ({spread(e - plain, 1, sign=True)})" for e in others),
    ]


def _title(name: str, record: dict) -> str:
    """A row's name, what its recipe is, and the network or the encoder where it is to be named."""
    title, config = f"`{record['row']}`", record["config"]
    if not any("choices" in change for change in TABLES[name].rows[record["row"]].changes):
        title += f": {RECIPES[record['recipe']].about}"
    if "encoder" in record:
        epochs = config["encoder.fine_tuning.epochs"]
        return f"{title} ({record['encoder']}, {epochs} epochs of fine-tuning)"
    return f"{title} ({config['model.name']})" if record["dataset"] == "modelnet10" else title


def _values(records: list[dict], which: str, name: str) -> list[float | None]:
    return [(record["results"][which] or {}).get(name) for record in records]


def _epochs(config: dict, recipe: str | None = None) -> str:
    """Epochs of the stages, such as 200 + 40."""
    parts = [config["stage1.epochs"]]
    if f"stage2.{recipe}.epochs" in config:
        parts.append(config[f"stage2.{recipe}.epochs"])
    return " + ".join(map(str, parts))


def _provenance(records: list[dict]) -> str:
    """Devices and versions that the records come from."""
    devices = sorted({record["device"] for record in records})
    versions = sorted(
        {
            ", ".join(f"{name} {version}" for name, version in record["versions"].items())
            for record in records
        }
    )
    return f"Device {' and '.join(devices)}; {'; or '.join(versions)}."


def _grouped(records: list[dict], *names: str):
    """Records by the values of some fields, in the order of their first ones."""
    groups = {}
    for record in records:
        groups.setdefault(tuple(record[name] for name in names), []).append(record)
    return groups.items()


if __name__ == "__main__":
    run_app(main)
