"""OT problems to draw: that of a run over its whole training set, and a toy of 55 examples."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float, Int

from experiments.pictures.transport import TransportResult
from experiments.recipes import RECIPES
from experiments.recipes.transport import reweighting_of
from experiments.runs.restoring import Restored
from otrw_jax import (
    EntropicOT,
    combined_cost,
    feature_cost,
    label_cost,
    ot_loss,
    prototypes,
)
from otrw_jax.methods.base import present
from otrw_jax.methods.ot.problem import atoms_before_network, cost_of, measure_of
from otrw_jax.methods.reading import in_chunks
from otrw_jax.ot import weights as example_weights
from otrw_jax.ot.entropic import transport

STEPS, RATE = 300, 0.02


def has_plan(end: Restored) -> bool:
    """Whether a checkpoint's method has an OT problem."""
    recipe = RECIPES[end.program.config.recipe]
    return recipe.preset is not None and end.stage.name == "stage2"


def transport_of_run(
    end: Restored, weights: Float[np.ndarray, "n"]
) -> tuple[dict[str, TransportResult], Int[np.ndarray, "n"]]:
    """The OT problem of a run at a checkpoint, over the whole training set.

    The cost, the measure and the regularisation are the run's, on features in evaluation mode;
    its steps see batches. A measure that is drawn at random is one draw of it.

    Args:
        end: a checkpoint of an OT stage.
        weights: learned, one a training example.

    Returns:
        `(cost, plan of uniform weights, plan of the learned, learned as probabilities)` by the
        cost's name, atoms ordered by class, and the examples' labels.
    """
    config = end.program.config
    view, raw, state = end.prepared.data.view, end.prepared.train, end.state
    choices = reweighting_of(config.stage2[config.recipe].choices, view.num_classes)
    method_state = getattr(state, "inner", state)  # Within that of a moving average.
    atoms, atom_labels = method_state.meta_features, method_state.meta_labels
    if choices.meta_features == "step":
        examples = atoms_before_network(choices, present(view.meta), view.num_classes)
        atoms, _ = end.program.model.features(state.variables, examples.inputs, False)
        atom_labels = examples.labels
    key = jax.random.key(0)
    measure = measure_of(choices, key, atoms, atom_labels, view.num_classes)
    z = end.program.read(state.variables, raw).inputs
    order = np.argsort(np.asarray(measure.labels), kind="stable")
    cost = cost_of(choices, z, raw.labels, measure)[:, order]
    learned = example_weights.mass(jnp.asarray(weights, jnp.float32), choices.simplex)
    ot = EntropicOT(epsilon=choices.ot.epsilon)
    before, after = (
        np.asarray(transport(w, cost, measure.weights[order], ot=ot).plan)
        for w in (jnp.full_like(learned, 1 / len(learned)), learned)
    )
    result = np.asarray(cost), before, after, np.asarray(learned)
    return {f"{choices.cost} cost": result}, np.asarray(raw.labels)


def transport_toy(restored: Restored) -> tuple[dict, np.ndarray]:
    """The weights of 10, 9, ..., 1 examples of the first classes, by each cost (figures 1 and 5).

    Meta prototypes are the other side; weights start uniform and descend the OT loss.

    Returns:
        For each cost `(cost, plan before, plan after, weights)`, and the examples' labels.
    """
    prepared = restored.prepared
    view = prepared.data.view
    size = min(10, view.num_classes)
    labels = np.asarray(prepared.train.labels)
    ids = np.concatenate([np.flatnonzero(labels == c)[: size - c] for c in range(size)])
    model, variables = restored.program.model, restored.state.variables

    def features(inputs):
        return model.features(variables, inputs, False)[0]

    inputs = restored.program.preprocessing.evaluate(prepared.stored(ids))
    train, train_labels = features(inputs), labels[ids]
    meta = present(view.meta)
    z = in_chunks(features, meta.inputs)
    atoms = prototypes(z, meta.labels, view.num_classes)[:size]
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
