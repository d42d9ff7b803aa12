"""The picture of how runs converge."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from experiments.pictures import LINES, save


def convergence_picture(path: str | Path, histories: Mapping[str, Sequence[dict]]) -> None:
    """Training loss and test accuracy by epoch of the last stage, one line a run.

    Figure 4 of the paper. Epochs without an evaluation have no point in the second panel.

    Args:
        path: the PNG file to write.
        histories: records of the epochs of each run (`metrics.jsonl`), by title.

    Raises:
        ValueError: there is no run, or one without records.
    """
    if not histories or not all(histories.values()):
        raise ValueError("histories is empty, or one of them is: give runs that have records.")
    figure = Figure((11, 4.2), layout="constrained")
    losses, accuracies = figure.subplots(1, 2)
    for number, (title, records) in enumerate(histories.items()):
        style = LINES[number % len(LINES)]
        last = [record for record in records if record["stage"] == records[-1]["stage"]]
        begin = last[0]["number"] - 1
        epochs = [record["number"] - begin for record in last]
        style = style | {"marker": style["marker"] if len(last) <= 40 else ""}
        losses.plot(epochs, [record["loss"] for record in last], label=title, **style)
        tested = [record for record in last if "test" in record]
        accuracies.plot(
            [record["number"] - begin for record in tested],
            [100 - record["test"]["error"] for record in tested],
            **style,
        )
    losses.set(xlabel="epoch of the last stage", ylabel="training loss (nats)")
    losses.set_yscale("log")
    accuracies.set(xlabel="epoch of the last stage", ylabel="test accuracy (%)")
    for axes in (losses, accuracies):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="0.92")
        axes.set_axisbelow(True)
    figure.legend(loc="outside upper center", ncols=min(len(histories), 4), frameon=False)
    save(figure, path)
