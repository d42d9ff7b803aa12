"""What a run tells while it goes on: a line an epoch, a metrics file, TensorBoard events."""

import json
import math
import pathlib
import time

import tensorboardX
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

# Where there is no terminal, epochs without an evaluation are told at most this often.
QUIET_SECONDS = 10.0


class Reporter:
    """Reports epochs to the terminal and to the files of a run directory."""

    def __init__(
        self,
        workdir: pathlib.Path,
        title: str,
        total: int,
        history: list[dict],
        progress: bool = True,
    ):
        """Starts from the history of a resumed run, empty at first.

        Args:
            workdir: gets `metrics.jsonl` and `tensorboard/`.
            title: shown before every line.
            total: number of epochs over all stages.
            history: records of the epochs behind.
            progress: whether a terminal shows its progress; there is room for one run's.
        """
        self._path = workdir / "metrics.jsonl"
        self._path.write_text("".join(_line(record) for record in history))
        self._events = tensorboardX.SummaryWriter(
            str(workdir / "tensorboard"), purge_step=len(history) + 1, write_to_disk=True
        )
        self._printed = 0.0
        self._warned = any(record.get("ot_unconverged") for record in history)
        self._console = Console()
        self._title = title
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total} epochs"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[status]}"),
            console=self._console,
            disable=not self._console.is_terminal or not progress,
        )
        self._task = self._progress.add_task(title, total=total, completed=len(history), status="")
        self._progress.start()

    def epoch(self, record: dict) -> None:
        """Reports one epoch's record."""
        with self._path.open("a") as file:
            file.write(_line(record))
        for name, value in _scalars(record):
            self._events.add_scalar(name, value, record["number"])
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
        self._progress.update(self._task, completed=record["number"], status=status)
        now = time.monotonic()
        if not self._console.is_terminal and (
            "test" in record or now - self._printed > QUIET_SECONDS
        ):
            self._printed = now
            print(f"{self._title} epoch {record['number']}: {status}", flush=True)

    def _warn(self, record: dict) -> None:
        """Says once in a run that OT problems did not converge, and what to do."""
        if self._warned or not record["ot_unconverged"]:
            return
        self._warned = True
        self._console.print(
            f"{self._title}: {100 * record['ot_unconverged']:.1f} % of the OT problems of epoch "
            f"{record['number']} did not converge, their marginals are wrong by "
            f"{record['ot_marginal_error']:.1e} in the mean; their losses are those of feasible "
            "plans, and their gradients bounded. Take a larger ot.max_iterations or ot.epsilon "
            "among the choices of the stage to have them converge.",
            soft_wrap=True,
            markup=False,
            highlight=False,
        )

    def close(self) -> None:
        """Ends the progress bar and closes the files."""
        self._progress.stop()
        self._events.close()


def _line(record: dict) -> str:
    return json.dumps(record) + "\n"


def _scalars(record: dict):
    for name, value in record.items():
        if isinstance(value, dict):
            for inner, number in value.items():
                if math.isfinite(number):
                    yield f"{name}/{inner}", number
        elif isinstance(value, float):
            yield f"train/{name}", value
