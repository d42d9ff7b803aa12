"""What a terminal shows of runs that go on: one bar over all of them, and what is waited for."""

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from otrw_jax.training.devices import is_first_process


class Display:
    """A bar over the epochs of all runs; where there is no terminal, lines of what is waited for.

    It moves within an epoch, after every call of the device.

    Attributes:
        terminal: whether there is one; of several processes the first has it.
    """

    def __init__(self, title: str, waiting: str):
        """Shows the bar.

        Args:
            title: stands before it.
            waiting: what is being done, as in `waiting`.
        """
        console = Console()
        self.terminal = console.is_terminal and is_first_process()
        self._title = title
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[epochs]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[status]}"),
            console=console,
            disable=not self.terminal,
        )
        self._task = self._progress.add_task(title, total=None, status=waiting, epochs="")
        self._progress.start()

    def begin(self, done: int, total: int) -> None:
        """Says how many epochs there are, over all runs, and how many of these are done."""
        self._total, self._begun = total, done
        self._shown: float = done
        self._move(done)

    def waiting(self, what: str, told: bool = True) -> None:
        """Shows what is being done; without a terminal, a line of it unless it is not `told`."""
        self._progress.update(self._task, status=what)
        if told and not self.terminal:
            print(f"{self._title}: {what}", flush=True)

    def say(self, sentence: str) -> None:
        """Prints a sentence, above the bar where there is one."""
        self._progress.console.print(sentence, soft_wrap=True, markup=False, highlight=False)

    def within(self, epochs: float) -> None:
        """Shows the part of the next epochs that is done, counted over the runs."""
        self._move(self._begun + epochs)

    def epoch(self, status: str) -> None:
        """Shows that one more epoch of one run is done."""
        self._begun += 1
        self._move(self._begun)
        self._progress.update(self._task, status=status)

    def close(self) -> None:
        """Ends the bar."""
        self._progress.stop()

    def _move(self, completed: float) -> None:
        self._shown = max(self._shown, completed)  # Runs of a group are reported one by one.
        epochs = f"{int(self._shown)}/{self._total} epochs"
        self._progress.update(self._task, total=self._total, completed=self._shown, epochs=epochs)
