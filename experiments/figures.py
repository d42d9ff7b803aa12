"""Draws the paper's figures from a run directory.

python -m experiments.figures --workdir=runs/digits
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.cli import WORKDIR, run_app
from experiments.pictures import class_weights_picture, confusion_pictures, transport_picture
from experiments.run import Restored, restore
from otrw_jax import EntropicOT, combined_cost, feature_cost, label_cost, ot_loss, prototypes
from otrw_jax.ot import weights as example_weights
from otrw_jax.ot.transport import transport

STEPS, RATE = 300, 0.02


def main(argv: list[str]) -> None:
    """Draws every figure that the run has the data for."""
    del argv
    for path in draw(pathlib.Path(WORKDIR.value)):
        print(f"written: {path}")


def draw(workdir: pathlib.Path) -> list[pathlib.Path]:
    """Draws confusion before and after stage 2, weights by class, and the toy of 55 examples."""
    last = restore(workdir)
    first = restore(workdir, "stage1")
    names = last.experiment.dataset.class_names
    paths = [workdir / "confusion_matrices.png"]
    ends = {"cross-entropy (stage 1)": first}
    if last.stage != first.stage:
        ends[f"{last.experiment.config.recipe} (stage 2)"] = last
    confusion_pictures(
        paths[0],
        {
            title: np.asarray(
                end.experiment.evaluate(end.state.variables, end.prepared.test).confusion
            )
            for title, end in ends.items()
        },
        names,
    )
    if hasattr(last.state, "weights"):
        paths.append(workdir / "class_weights.png")
        labels = np.asarray(last.prepared.data.raw.labels)
        values = np.asarray(last.state.weights.values)
        counts = last.prepared.split.counts
        means = np.bincount(labels, values, len(counts)) / counts
        class_weights_picture(paths[1], counts, {last.experiment.config.recipe: means}, names)
    if first.prepared.data.view.meta is not None:
        paths.append(workdir / "transport.png")
        results, labels = transport_toy(first)
        transport_picture(paths[-1], results, labels)
    return paths


def transport_toy(restored: Restored) -> tuple[dict, np.ndarray]:
    """The weights of 10, 9, ..., 1 examples of the first classes, by each cost (figures 1 and 5).

    Meta prototypes are the other side; weights start uniform and descend the OT loss.

    Returns:
        For each cost `(cost, plan before, plan after, weights)`, and the examples' labels.
    """
    view = restored.prepared.data.view
    size = min(10, view.num_classes)
    labels = np.asarray(view.train.labels)
    ids = np.concatenate([np.flatnonzero(labels == c)[: size - c] for c in range(size)])
    model, variables = restored.experiment.model, restored.state.variables

    def features(inputs):
        return model.features(variables, inputs, False)[0]

    train, train_labels = features(view.train.inputs[ids]), labels[ids]
    atoms = prototypes(features(view.meta.inputs), view.meta.labels, view.num_classes)[:size]
    classes = np.arange(size)
    costs = {
        "feature cost": feature_cost(train, atoms),
        "label cost": label_cost(train_labels, classes),
        "combined cost": combined_cost(train, train_labels, atoms, classes),
    }
    return {name: _descend(cost) for name, cost in costs.items()}, train_labels


def _descend(cost):
    optimizer = optax.sgd(optax.cosine_decay_schedule(RATE, STEPS))
    ot = EntropicOT()
    uniform = jnp.full((cost.shape[0],), 1 / cost.shape[0])

    @jax.jit
    def descend(values):
        def step(entries, _):
            entries, loss = example_weights.update(
                entries,
                lambda v: ot_loss(example_weights.mass(v, "normalize"), cost, ot=ot),
                optimizer,
                "normalize",
            )
            return entries, loss

        entries = example_weights.init_weights(values, optimizer)
        return jax.lax.scan(step, entries, length=STEPS)[0].values

    learned = descend(uniform)
    plans = [np.asarray(transport(w, cost, ot=ot).plan) for w in (uniform, learned)]
    return np.asarray(cost), *plans, np.asarray(learned)


if __name__ == "__main__":
    run_app(main, "workdir")
