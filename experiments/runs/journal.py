"""What a run tells while it goes on: a line an epoch, a metrics file, TensorBoard events."""

import contextlib
import json
import math
import pathlib
import time

from experiments.runs.display import Display
from otrw_jax.files import append_line, write_text, writing

# Where there is no terminal, epochs without an evaluation are told at most this often.
QUIET_SECONDS = 10.0


class Reporter:
    """Reports a run's epochs to the terminal and to the files of its directory."""

    def __init__(self, workdir: pathlib.Path, title: str, history: list[dict], display: Display):
        """Starts from the history of a resumed run, empty at first.

        Args:
            workdir: gets `metrics.jsonl` and `tensorboard/`.
            title: shown before every line.
            history: records of the epochs behind.
            display: shared by all runs.

        Raises:
            OSError: a file cannot be written, as from `epoch`.
        """
        from tensorboardX.event_file_writer import EventsWriter  # Slow to import, with PyTorch.
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        self._path, self._folder = workdir / "metrics.jsonl", workdir / "tensorboard"
        write_text(self._path, "".join(f"{json.dumps(record)}\n" for record in history))
        with writing(self._folder):
            self._folder.mkdir(exist_ok=True)
            # Without the thread of `SummaryWriter`, from which no error would come.
            self._events = EventsWriter(str(self._folder / "events"), f".{len(history)}")
            # TensorBoard forgets what an earlier file has of this epoch and those after it.
            log = SessionLog(status=SessionLog.START)
            self._events.write_event(Event(step=len(history) + 1, session_log=log))
        self._printed = 0.0
        self._warned = any(record.get("ot_unconverged") for record in history)
        self._title, self._display = title, display

    def epoch(self, record: dict) -> None:
        """Reports one epoch's record."""
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar

        append_line(self._path, json.dumps(record))
        with writing(self._folder):
            for name, value in _scalars(record):
                summary, at = scalar(name, value), record["number"]
                self._events.write_event(Event(step=at, wall_time=time.time(), summary=summary))
            self._events.flush()
        status = f"{record['stage']} loss {record['loss']:.4f} error {record['train_error']:.1f} %"
        if "test" in record:
            status += f", test error {record['test']['error']:.2f} %"
        if "ot_unconverged" in record:
            status += (
                f", {100 * record['ot_unconverged']:.1f} % of OT problems unconverged"
                f" (marginal error {record['ot_marginal_error']:.1e})"
            )
            self._warn(record)
        self._display.epoch(status)
        now = time.monotonic()
        if not self._display.terminal and ("test" in record or now - self._printed > QUIET_SECONDS):
            self._printed = now
            print(f"{self._title} epoch {record['number']}: {status}", flush=True)

    def _warn(self, record: dict) -> None:
        """Says once in a run that OT problems did not converge, and what to do."""
        if self._warned or not record["ot_unconverged"]:
            return
        self._warned = True
        self._display.say(
            f"{self._title}: {100 * record['ot_unconverged']:.1f} % of the OT problems of epoch "
            f"{record['number']} did not converge, their marginals are wrong by "
            f"{record['ot_marginal_error']:.1e} in the mean; their losses are those of feasible "
            "plans, and their gradients bounded. Take a larger ot.max_iterations or ot.epsilon "
            "among the choices of the stage to have them converge."
        )

    def close(self) -> None:
        """Closes the files; an error of the last epoch has been told."""
        with contextlib.suppress(OSError):
            self._events.close()


def _scalars(record: dict):
    for name, value in record.items():
        if isinstance(value, dict):
            for inner, number in value.items():
                if math.isfinite(number):
                    yield f"{name}/{inner}", number
        elif isinstance(value, float):
            yield f"train/{name}", value
