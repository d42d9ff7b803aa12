"""Rows of a table: their configs, whether a record is of one, and their runs."""

import math
import pathlib
from collections.abc import Iterator, Sequence

from ml_collections import ConfigDict

from experiments.configs import cifar_features, cifar_lt, digits, large_sets, modelnet10, sst
from experiments.configs.kinds import ENCODED, LISTED, SENTENCES
from experiments.configs.overrides import follow_rates
from experiments.program.encoding import encoder_name
from experiments.program.experiment import Experiment
from experiments.program.images.encoded_images import image_encoder_name
from experiments.program.layout import seeds_at_once
from experiments.recipes import RECIPES
from experiments.runs.first_stage import differing_first_stage
from experiments.runs.identity import factor_of, flatten, portable
from experiments.runs.network_files import SUFFIX, is_network_file, read_about
from experiments.runs.open_run import Run
from experiments.runs.outcomes import best_record
from experiments.runs.training import train_together
from experiments.studies.records import read
from experiments.studies.tables import Row
from otrw_jax.checks import nearest
from otrw_jax.files import read_json

KEPT = (
    "epoch",
    "error",
    "balanced_accuracy",
    "many_accuracy",
    "medium_accuracy",
    "few_accuracy",
)


def row_config(
    row: Row, dataset: str, factor: float, changes: dict, protocol: str = "paper"
) -> ConfigDict:
    """The config of a row, as `Experiment` resolves it but for the seeds.

    Raises:
        ValueError: a protocol that the data set does not have; a change of a field that there is
            not, or to another type.
    """
    config = _protocol_config(row, dataset, factor, changes, protocol)
    fields = flatten(config.to_dict())
    # A row has no use for another recipe's field, which one --set may bring for all rows.
    foreign = [f"{part}.{other}." for part in ("stage2", "options") for other in RECIPES]
    own = tuple(f"{part}.{row.recipe}." for part in ("stage2", "options"))
    changes = {**changes, **row.changes}
    for name, value in changes.items():
        if name.startswith(tuple(foreign)) and not name.startswith(own):
            continue
        if name not in fields:
            near = nearest(name, fields)
            raise ValueError(f"the config has no field {name!r}; did you mean {near!r}?")
        try:
            config.update_from_flattened_dict({name: value})
        except TypeError as error:
            raise ValueError(f"{name}={value!r}: {error}") from error
    follow_rates(config, changes)
    return config


def protocols_of(dataset: str) -> tuple[str, ...]:
    """The protocols that a data set has."""
    return cifar_lt.PROTOCOLS if dataset in cifar_lt.DATASETS else ("paper",)


def _protocol_config(row, dataset, factor, changes, protocol) -> ConfigDict:
    if protocol not in protocols_of(dataset):
        raise ValueError(
            f"--protocol={protocol}: {dataset} has {' and '.join(protocols_of(dataset))} alone."
        )
    arguments = f"imbalance_factor={factor},recipe={row.recipe}"
    if dataset in sst.PROTOCOLS:
        minority = round(sst.PROTOCOLS[dataset][1] / factor)
        return sst.get_config(f"{dataset},minority={minority},recipe={row.recipe}")
    if dataset == "modelnet10":
        minority, network = round(100 / factor), {**changes, **row.changes}.get("model.name")
        network = f"backbone={network}," if network else ""
        return modelnet10.get_config(f"minority={minority},{network}recipe={row.recipe}")
    if dataset == "digits":
        return digits.get_config(arguments)
    if dataset in LISTED:
        if factor != LISTED[dataset]:
            raise ValueError(
                f"--imbalance_factor={factor}: the lists of {dataset} have {LISTED[dataset]:g}."
            )
        return large_sets.get_config(f"dataset={dataset},recipe={row.recipe}")
    if dataset in ENCODED:
        return cifar_features.get_config(f"dataset={ENCODED[dataset]},{arguments}")
    return cifar_lt.get_config(f"dataset={dataset},{arguments},protocol={protocol}")


def resolved(config: ConfigDict, seed: int) -> dict:
    """The fields of a config that decide what comes out of a run, as JSON has them."""
    own = tuple(f"{part}.{config.recipe}." for part in ("stage2", "options"))
    fields = {
        name: value
        for name, value in portable(config).items()
        if name.startswith(own) or not name.startswith(("stage2.", "options."))
    }
    return fields | {"seed": seed, "subset_seed": seed}


def takes_over_cross_entropy(config: ConfigDict) -> bool:
    """Whether a recipe has a second stage on the first one of cross-entropy."""
    recipe = RECIPES[config.recipe]
    return recipe.second is not None and recipe.trains_first == RECIPES["ce"].trains_first


def first_stage_of(folder: pathlib.Path, networks: pathlib.Path, config: ConfigDict, seed: int):
    """A finished first stage that is a run's: a run directory, else a network file, else "".

    Args:
        folder: of all runs, `TABLE/SETTING/ROW/seed_N` in it.
        networks: folder of network files.
        config: of the run.
        seed: of the run.
    """
    wanted = resolved(config, seed)
    for results in sorted(folder.glob(f"*/*/ce/seed_{seed}/results.json")):
        if not differing_first_stage(results.parent, wanted):
            return results.parent
    return network_for(networks, config, seed)


def network_for(networks: pathlib.Path, config: ConfigDict, seed: int) -> pathlib.Path | str:
    """The network file of a folder that is a run's first stage; "" where there is none."""
    wanted = resolved(config, seed)
    for path in sorted(networks.glob(f"*{SUFFIX}")):
        if not differing_first_stage(read_about(path)["config"], wanted):
            return path
    return ""


def run_row(
    config: ConfigDict,
    workdir: pathlib.Path,
    row: str,
    seeds: Sequence[int],
    networks: pathlib.Path,
    until: float = math.inf,
) -> Iterator[dict]:
    """Trains a row on the seeds, and gives each seed's record; together where the device gains.

    A first stage of cross-entropy is that of a run directory, or of a network file where there is
    none; it is trained where there is neither.

    Args:
        config: of the row.
        workdir: folder of the setting, with a folder a row; that of all runs is two above.
        row: the row's name.
        seeds: of its runs.
        networks: folder of network files.
        until: when to stop, as in `train_together`.

    Raises:
        OutOfTimeError: the time has come; the same call goes on.
    """
    experiment, shared = Experiment(config), ConfigDict(config)
    shared.recipe = "ce"
    at_once = seeds_at_once(experiment.config, experiment.devices, len(seeds))
    for some in (seeds[at : at + at_once] for at in range(0, len(seeds), at_once)):
        firsts = {}
        if takes_over_cross_entropy(config):
            firsts = _first_stages(shared, workdir, some, networks, until)
        elif config.recipe == "ce":
            firsts = {seed: network_for(networks, config, seed) for seed in some}
        runs = runs_of(workdir / row, some, firsts)
        results = train_together(experiment, runs, until=until)
        for run, result in zip(runs, results, strict=True):
            yield _record(config, run, result)


def _first_stages(shared: ConfigDict, workdir: pathlib.Path, seeds, networks, until) -> dict:
    """First stages of cross-entropy by seed, trained where there are none."""
    firsts = {s: first_stage_of(workdir.parents[1], networks, shared, s) for s in seeds}
    missing = [seed for seed in seeds if not firsts[seed]]
    if missing:
        runs = runs_of(workdir / "ce", missing)
        train_together(Experiment(shared), runs, until=until)
        firsts |= {run.seed: run.workdir for run in runs}
    return firsts


def runs_of(folder: pathlib.Path, seeds: Sequence[int], firsts: dict | None = None) -> list[Run]:
    """A run a seed, in subfolders; each with the first stage that it takes over, if any."""
    firsts = firsts or {}
    return [Run(folder / f"seed_{seed}", seed, seed, firsts.get(seed, "")) for seed in seeds]


def _record(config: ConfigDict, run: Run, result: dict) -> dict:
    """What is kept of a run."""
    about = read_json(run.workdir / "run.json")
    epochs = read(run.workdir / "metrics.jsonl")
    if is_network_file(run.stage1_from):
        file = read_about(run.stage1_from)
        if len(file["history"]) == len(epochs):  # Trained where the file was made, nothing here.
            about |= {name: file[name] for name in ("versions", "device")}
    # A first stage that is taken over may be of another device, and of other seeds together.
    here = about["device"]
    devices = {e["stage"]: e["device"] for e in epochs if e.get("device", here) != here}
    together = max(epoch.get("seeds_together", 1) for epoch in epochs)
    seconds: dict[str, float] = {}
    for epoch in epochs:
        of_all = epoch["seconds"] * together / epoch.get("seeds_together", 1)
        seconds[epoch["stage"]] = seconds.get(epoch["stage"], 0.0) + of_all
    return {
        "recipe": config.recipe,
        "dataset": config.data.name,
        "imbalance_factor": factor_of(config),
        **named_encoder(config),
        "seed": run.seed,
        **{name: about[name] for name in ("fingerprint", "parameters", "versions", "device")},
        "results": {
            name: one and {k: round(one[k], 4) for k in KEPT if k in one}
            for name, one in result.items()
        },
        "held_out_error": _held_out_error(epochs),
        "seconds": round(sum(seconds.values()), 2),
        "seconds_of": {stage: round(value, 2) for stage, value in seconds.items()},
        "seeds_together": together,
        **({"device_of": devices} if devices else {}),
        "config": resolved(config, run.seed),
    }


def named_encoder(config: ConfigDict) -> dict[str, str]:
    """The encoder's name, where the data set is seen as its features."""
    if config.data.name in SENTENCES:
        return {"encoder": encoder_name(config.encoder)}
    of_images = config.data.name in (*ENCODED, *LISTED)
    return {"encoder": image_encoder_name(config.encoder)} if of_images else {}


def _held_out_error(history: list[dict]) -> float | None:
    """On the held-out part, of the epoch that it chooses; None where there is no such part."""
    best = best_record(history, "held_out")
    return round(best["held_out"]["error"], 4) if best else None
