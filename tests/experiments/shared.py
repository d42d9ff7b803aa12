"""What tests of runs share: changed configs, records read back, interruptions."""

import contextlib
import copy
import json

import jax
from PIL import Image

from otrw_jax.training.checkpoints import Checkpoints
from tests.compilations import heard


class Interrupted(Exception):
    """Stands for a kill."""


def with_fields(experiment, **fields):
    """The experiment under a config that differs; what is compiled is shared."""
    other = copy.copy(experiment)
    other.config = copy.deepcopy(experiment.config)
    with other.config.unlocked():
        other.config.update_from_flattened_dict(fields)
    return other


def history_of(workdir, number=None):
    """The records of a run's epochs, without the seconds that they took."""
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        records = checkpoints.record(number)["history"]
    return [{k: v for k, v in record.items() if k != "seconds"} for record in records]


def lines_of(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@contextlib.contextmanager
def nothing_compiled():
    """Asserts that no program is compiled, nor taken from the folder of compiled ones."""
    with heard() as compiled:
        yield
        assert compiled == []
        jax.jit(lambda x: x + 12345)(1.0)  # The listener does hear.
        assert len(compiled) == 1


def interrupt(monkeypatch, owner, name, number_of, at):
    """Makes a method raise at an epoch's number."""
    method = getattr(owner, name)

    def interrupted(self, *args, **kwargs):
        if number_of(args) == at:
            raise Interrupted
        return method(self, *args, **kwargs)

    monkeypatch.setattr(owner, name, interrupted)


def is_picture(path):
    with Image.open(path) as image:
        return image.format == "PNG" and min(image.size) > 200
