"""Runs rows of a table over several seeds, and appends a record of each run.

python -m experiments.reproduce table1 --dataset=cifar10 --imbalance_factor=100 --seeds=0,1,2 \\
    --recipes=ce,ldam_drw,otrw_released --set=stage1.epochs=30

Runs that are recorded are skipped, also those that another table has; interrupted ones go on.
Recipes that begin with cross-entropy share its first stage. `experiments.report` makes the document
of the records.
"""

import ast
import copy
import difflib
import pathlib

from absl import flags
from ml_collections import ConfigDict

from experiments.cli import RECORDS, WORKDIR, run_app, seeds
from experiments.configs import cifar_lt, digits, modelnet10, sst
from experiments.encoding import name_of
from experiments.experiment import Experiment
from experiments.recipes import RECIPES
from experiments.records import append, read
from experiments.run import Run, train_together
from experiments.rundir import HOW, best_record, factor_of, flatten
from experiments.tables import TABLES, Row
from otrw_jax.checkpoints import read_json

DATASET = flags.DEFINE_string(
    "dataset", None, "digits, cifar10, cifar100, sst2, sst5, modelnet10; that of the table."
)
FACTOR = flags.DEFINE_float("imbalance_factor", None, "Largest over smallest; that of the table.")
ROWS = flags.DEFINE_list("recipes", [], "Rows of the table; all by default.")
SET = flags.DEFINE_multi_string("set", [], "A field of the config, as stage1.epochs=30.")

KEPT = (
    "epoch",
    "error",
    "balanced_accuracy",
    "many_accuracy",
    "medium_accuracy",
    "few_accuracy",
)


def main(argv: list[str]) -> None:
    """Runs what is not yet recorded."""
    if len(argv) != 2 or argv[1] not in TABLES:
        raise ValueError(f"name one table: {', '.join(TABLES)}.")
    name, table = argv[1], TABLES[argv[1]]
    for row in ROWS.value:
        if row not in table.rows:
            near = difflib.get_close_matches(row, table.rows, 1, 0)[0]
            raise ValueError(f"{name} has no row {row!r}; did you mean {near!r}?")
    wanted = seeds(5)
    dataset = DATASET.value or table.dataset
    factor = FACTOR.value or table.imbalance_factor
    changes = dict(parse_change(text) for text in SET.value)
    folder = pathlib.Path(RECORDS.value)
    path = folder / f"{name}.jsonl"
    elsewhere = [r for other in TABLES if other != name for r in read(folder / f"{other}.jsonl")]
    workdir = pathlib.Path(WORKDIR.value or "runs") / name / f"{dataset}_if{factor:g}"
    for row in ROWS.value or table.rows:
        config = row_config(table.rows[row], dataset, factor, changes)
        told = {k: v for k, v in changes.items() if k not in HOW}
        if "encoder.folder" in told:
            told["encoder.folder"] = name_of(config.encoder)
        about = {"table": name, "row": row, "changes": told}
        known = [record for record in read(path) if record["row"] == row]
        left = [seed for seed in wanted if not any(is_of(r, config, seed) for r in known)]
        for seed in list(left):
            for record in elsewhere:
                if "held_out_error" in record and is_of(record, config, seed):
                    append(path, record | about)
                    print(f"{row}, seed {seed}: the run recorded in {record['table']}")
                    left.remove(seed)
                    break
        if not left:
            print(f"{row}: all of {len(wanted)} seeds are recorded.")
            continue
        for record in run_row(config, workdir, row, left):
            append(path, about | record)
            print(f"{row}, seed {record['seed']}: recorded in {path}", flush=True)


def parse_change(text: str) -> tuple[str, object]:
    """A field and its value, of `name=value`."""
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--set={text!r} must be of the form name=value.")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def row_config(row: Row, dataset: str, factor: float, changes: dict) -> ConfigDict:
    """The config of a row, as `Experiment` resolves it but for the seeds.

    Raises:
        ValueError: a change of a field that there is not, or to another type.
    """
    arguments = f"imbalance_factor={factor},recipe={row.recipe}"
    if dataset in sst.PROTOCOLS:
        minority = round(sst.PROTOCOLS[dataset][1] / factor)
        config = sst.get_config(f"{dataset},minority={minority},recipe={row.recipe}")
    elif dataset == "modelnet10":
        minority, network = round(100 / factor), {**changes, **row.changes}.get("model.name")
        network = f"backbone={network}," if network else ""
        config = modelnet10.get_config(f"minority={minority},{network}recipe={row.recipe}")
    elif dataset == "digits":
        config = digits.get_config(arguments)
    else:
        config = cifar_lt.get_config(f"dataset={dataset},{arguments}")
    fields = flatten(config.to_dict())
    # A row has no use for another recipe's field, which one --set may bring for all rows.
    foreign = [f"{part}.{other}." for part in ("stage2", "options") for other in RECIPES]
    own = tuple(f"{part}.{row.recipe}." for part in ("stage2", "options"))
    for name, value in {**changes, **row.changes}.items():
        if name.startswith(tuple(foreign)) and not name.startswith(own):
            continue
        if name not in fields:
            near = difflib.get_close_matches(name, fields, 1, 0)[0]
            raise ValueError(f"the config has no field {name!r}; did you mean {near!r}?")
        try:
            config.update_from_flattened_dict({name: value})
        except TypeError as error:
            raise ValueError(f"{name}={value!r}: {error}") from error
    return config


def resolved(config: ConfigDict, seed: int) -> dict:
    """The fields of a config that decide what comes out of a run, as JSON has them."""
    config = copy.deepcopy(config)
    config.seed = config.subset_seed = seed
    for part in ("stage2", "options"):
        own = {k: v for k, v in config[part].items() if k == config.recipe}
        config[part] = ConfigDict(own)
    if "encoder" in config:  # Where its files lie decides nothing, and is no one else's business.
        config.encoder.folder = name_of(config.encoder)
    return {name: v for name, v in flatten(config.to_dict()).items() if name not in HOW}


def is_of(record: dict, config: ConfigDict, seed: int) -> bool:
    """Whether a record is that of a config and a seed."""
    return record["config"] == resolved(config, seed)


def run_row(config: ConfigDict, workdir: pathlib.Path, row: str, seeds: list[int]):
    """Trains a row on the seeds together, and gives each seed's record."""
    recipe = RECIPES[config.recipe]
    first = None
    if recipe.second is not None and recipe.first == RECIPES["ce"].first:
        first = workdir / "ce"
        shared = ConfigDict(config)
        shared.recipe = "ce"
        train_together(Experiment(shared), runs_of(first, seeds))
    experiment = Experiment(config)
    runs = runs_of(workdir / row, seeds, first)
    results = train_together(experiment, runs)
    for run, result in zip(runs, results, strict=True):
        about = read_json(run.workdir / "run.json")
        records = read(run.workdir / "metrics.jsonl")
        yield {
            "recipe": config.recipe,
            "dataset": config.data.name,
            "imbalance_factor": factor_of(config),
            **({"encoder": name_of(config.encoder)} if "encoder" in config else {}),
            "seed": run.seed,
            **{name: about[name] for name in ("fingerprint", "parameters", "versions", "device")},
            "results": {
                name: one and {k: round(one[k], 4) for k in KEPT if k in one}
                for name, one in result.items()
            },
            "held_out_error": _held_out_error(records),
            "seconds": round(sum(record["seconds"] for record in records), 2),
            "seeds_together": max(record.get("seeds_together", 1) for record in records),
            "config": resolved(config, run.seed),
        }


def _held_out_error(history: list[dict]) -> float | None:
    """On the held-out part, of the epoch that it chooses; None where there is no such part."""
    best = best_record(history, "held_out")
    return best and round(best["held_out"]["error"], 4)


def runs_of(folder: pathlib.Path, seeds: list[int], first: pathlib.Path | None = None) -> list[Run]:
    """A run a seed, in subfolders."""
    return [Run(folder / f"seed_{s}", s, s, first / f"seed_{s}" if first else "") for s in seeds]


if __name__ == "__main__":
    run_app(main)
