"""How long cells take on this machine, by the seconds of what was run."""

import math
import statistics

from experiments.recipes import RECIPES
from experiments.runs.identity import factor_of_flat
from experiments.runs.network_files import SUFFIX, read_about
from experiments.runs.provenance import device_name
from experiments.studies.agenda import Cell
from experiments.studies.filling import Filler
from experiments.studies.records import read

STAGES = ("stage1", "recalibration", "stage2")


class Estimates:
    """Seconds of an epoch of each kind, from records, network files and begun runs.

    A stage that was taken over counts for the device that it was trained on. Those of this device
    count, or where there are none those of its platform; of these, those of
    the nearest imbalance factor.
    """

    def __init__(self, filler: Filler):
        """Reads what is known."""
        self._filler, self._device = filler, device_name()
        self._known: dict[tuple, list] = {}
        for records in filler.records.values():
            for record in records:
                self.note(record)
        for path in sorted(filler.folders.networks.glob(f"*{SUFFIX}")):
            about = read_about(path)
            spent = sum(epoch["seconds"] for epoch in about["history"])
            self.note(about | {"seconds_of": {"stage1": spent}, "seeds_together": 1})

    def note(self, record: dict) -> None:
        """Takes in the seconds of a record; where it has those of the whole alone, their mean."""
        config = record["config"]
        epochs = {stage: _epochs(config, stage) for stage in STAGES if _epochs(config, stage)}
        total = sum(epochs.values())
        for stage, count in epochs.items():
            mean = {stage: record.get("seconds", 0.0) * count / total}
            seconds = record.get("seconds_of", mean).get(stage)
            if seconds:
                known = self._known.setdefault(_kind(config, stage), [])
                rate = seconds / count / record["seeds_together"]
                device = record.get("device_of", {}).get(stage, record["device"])
                known.append((device, factor_of_flat(config), rate))

    def left(self, cell: Cell, seed: int) -> dict[tuple, float]:
        """Seconds of what a run has left, by what is trained; NaN where nothing is known.

        A first stage that several cells share has one name in all of them.
        """
        config = self._filler.fields(cell, seed)
        path = self._filler.run_directory(cell, seed) / "metrics.jsonl"
        done, found = read(path), {}
        for stage in STAGES:
            epochs = [
                e["seconds"] / e.get("seeds_together", 1) for e in done if e["stage"] == stage
            ]
            count = _epochs(config, stage) - len(epochs)
            if count <= 0 or (stage == "stage1" and self._filler.first_stage(cell, seed)):
                continue
            rate = statistics.median(epochs) if epochs else self._rate(config, stage)
            found[_name(config, stage, seed)] = count * rate
        return found

    def _rate(self, config: dict, stage: str) -> float:
        known = self._known.get(_kind(config, stage), [])
        platform = self._device.split(":")[0]
        here = [one for one in known if one[0] == self._device]
        here = here or [one for one in known if one[0].split(":")[0] == platform]
        if not here:
            return math.nan
        factor = factor_of_flat(config)
        distance = [abs(math.log(of / factor)) for _, of, _ in here]
        nearest = [r for (*_, r), d in zip(here, distance, strict=True) if d <= min(distance)]
        return statistics.median(nearest)


def _epochs(config: dict, stage: str) -> int:
    if stage == "stage1":
        return config["stage1.epochs"]
    if stage == "recalibration":
        return config["recalibration_epochs"]
    recipe = config["recipe"]
    return 0 if RECIPES[recipe].second is None else config[f"stage2.{recipe}.epochs"]


def _kind(config: dict, stage: str) -> tuple:
    """What epochs of about one length have in common, but for the number of examples."""
    recipe = config["recipe"]
    section = f"stage2.{recipe}" if stage == "stage2" else "stage1"
    trained = RECIPES[recipe].trains_first if stage != "stage2" else recipe
    size = config[f"{section}.batch_size"]
    return config["data.name"], config["model.name"], stage, trained, size


def _name(config: dict, stage: str, seed: int) -> tuple:
    """What is trained once, however many cells have it."""
    if stage == "stage2":
        return (stage, seed, repr(sorted(config.items())))
    parts = ("data.", "encoder.", "model.", f"{stage}.", "recalibration")
    fields = {name: value for name, value in config.items() if name.startswith(parts)}
    return (stage, seed, RECIPES[config["recipe"]].trains_first, repr(sorted(fields.items())))
