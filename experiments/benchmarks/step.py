"""A step of the second stage on ResNet-32: what the OT step adds, what a frozen backbone saves."""

import dataclasses
import statistics
import time
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.benchmarks.timing import Effort, interleaved, median_ratio
from experiments.configs.cifar_lt import get_config
from experiments.documents.markdown import number, table
from experiments.program.networks import make_model
from experiments.recipes.optimizers import make_optimizer
from otrw_jax import Batch, Examples, OTReweighting, TrainingData, erm, ot_reweight
from otrw_jax.data.splits import long_tailed_counts
from otrw_jax.methods.base import Method
from otrw_jax.methods.presets import paper

NUM_CLASSES = 10
META_PER_CLASS = 10
IMAGE = (32, 32, 3)

# The OT step of Algorithm 1 on what the loss pass gives, meta features kept for an epoch.
ONE_PASS = OTReweighting(features="loss_pass", meta_features="refresh")
FROZEN = dataclasses.replace(ONE_PASS, trainable="head/.*", batch_norm=False)

COMPARISONS = (
    ("OT step on the loss pass", "one_pass", "fixed", 1.05),
    ("`paper` preset", "paper", "fixed", None),
    ("frozen backbone, OT step", "frozen", "erm", 0.5),
    ("frozen backbone, OT step", "frozen", "frozen_fixed", None),
)
NAMES = {
    "fixed": "fixed weights",
    "erm": "cross-entropy, whole network",
    "frozen_fixed": "frozen backbone, fixed weights",
}
PROGRAMS = NAMES | {
    "paper": "`paper` preset",
    "one_pass": "OT step on the loss pass",
    "frozen": "frozen backbone, OT step",
}


def run(effort: Effort) -> list[dict]:
    """One record for each comparison."""
    steps = _steppers()
    records = []
    for name, ours, other, goal in COMPARISONS:
        seconds = interleaved({ours: steps[ours], other: steps[other]}, effort)
        records.append(
            {
                "section": "step",
                "name": name,
                "step": ours,
                "against": other,
                "seconds": statistics.median(seconds[ours]),
                "against_seconds": statistics.median(seconds[other]),
                "repeats": seconds,
                "ratio": median_ratio(seconds[ours], seconds[other]),
                "goal": goal,
            }
        )
    records += [{"section": "step", "step": name, **made.cost} for name, made in steps.items()]
    return records


def markdown(records: list[dict]) -> str:
    """The section's title, text and table."""
    programs = [r for r in records if "compile_seconds" in r]
    rows = []
    for r in records:
        if r in programs:
            continue
        if r["goal"] is None:
            goal = "–"
        else:
            goal = f"≤ {r['goal']:g}, {'met' if r['ratio'] <= r['goal'] else 'missed'}"
        milliseconds = [number(1e3 * r[key]) for key in ("seconds", "against_seconds")]
        ratio = f"{r['ratio']:.3f}"
        rows.append([r["name"], NAMES[r["against"]], *milliseconds, ratio, goal])
    batch_size = get_config().stage2.otrw_paper.batch_size
    return "\n\n".join(
        [
            "### A step of stage 2",
            f"ResNet-32, batch {batch_size}, {NUM_CLASSES} classes, "
            f"{NUM_CLASSES * META_PER_CLASS} meta images, prototypes, combined cost; compiled, "
            "the state donated. *Fixed weights* is the same step with stored example weights in "
            "place of the OT step. *On the loss pass*: the features of the pass that gives the "
            "losses serve the OT problem too, meta features are those of the last refresh; the "
            "`paper` preset takes the virtual step and passes batch and meta set through the "
            "network again. The *frozen backbone* is in evaluation mode, the head alone is "
            "trained.",
            table(["step", "against", "ms", "against, ms", "ratio", "goal"], rows),
            "What each program costs before it runs, and needs of memory as the compiler counts "
            "it: its arguments are the state, the batch and the meta set.",
            table(
                ["program", "trace, s", "compile, s", "arguments, MB", "temporary, MB"],
                [
                    [
                        PROGRAMS[r["step"]],
                        number(r["trace_seconds"]),
                        number(r["compile_seconds"]),
                        f"{r['arguments'] / 1e6:.1f}",
                        f"{r['temporary'] / 1e6:.1f}",
                    ]
                    for r in programs
                ],
            ),
        ]
    )


def _steppers():
    """Name to a function that takes one step of that kind, going on from the step before."""
    config = get_config()
    stage = config.stage2.otrw_paper
    model = make_model(config.model, NUM_CLASSES)
    optimizer = make_optimizer(stage.optimizer, 1)
    weight_optimizer = make_optimizer(stage.weight_optimizer, 1)
    make = partial(ot_reweight, model, optimizer, weight_optimizer, NUM_CLASSES)
    methods = {
        "erm": erm(model, optimizer),
        "paper": make(paper(NUM_CLASSES)),
        "one_pass": make(ONE_PASS),
        "fixed": make(_with_fixed_weights(ONE_PASS)),
        "frozen": make(FROZEN),
        "frozen_fixed": make(_with_fixed_weights(FROZEN)),
    }
    rng = np.random.default_rng(0)

    def images(count):
        return jnp.asarray(rng.normal(size=(count, *IMAGE)), jnp.float32)

    counts = long_tailed_counts(NUM_CLASSES, 4990, config.data.imbalance_factor)
    labels = jnp.asarray(np.repeat(np.arange(NUM_CLASSES), counts), jnp.int32)
    meta_labels = jnp.repeat(jnp.arange(NUM_CLASSES), META_PER_CLASS)
    meta = Examples(images(len(meta_labels)), meta_labels)
    data = TrainingData(Examples(None, labels), meta, NUM_CLASSES)
    ids = jnp.asarray(rng.choice(len(labels), stage.batch_size, replace=False))
    batch = Batch(images(stage.batch_size), labels[ids], ids)
    variables = model.init(jax.random.key(0), batch.inputs)
    return {name: _Stepper(method, variables, data, batch) for name, method in methods.items()}


def _with_fixed_weights(config):
    """The same step with stored weights; the label cost spares a pass over the training set."""
    return dataclasses.replace(config, weighting="global", cost="label")


class _Stepper:
    """A compiled step, what it cost, and the state that it donates and replaces."""

    def __init__(self, method: Method, variables: optax.Params, data: TrainingData, batch: Batch):
        # Copies, since the methods start from the same buffers and each donates its own.
        self._state = jax.tree.map(jnp.copy, method.init(jax.random.key(1), variables, data))
        self._arguments = batch, data.meta
        start = time.perf_counter()
        lowered = jax.jit(method.step, donate_argnums=0).lower(self._state, *self._arguments)
        traced = time.perf_counter()
        self._step = lowered.compile()
        compiled = time.perf_counter()
        memory: Any = self._step.memory_analysis()
        self.cost = {
            "trace_seconds": traced - start,
            "compile_seconds": compiled - traced,
            "arguments": memory.argument_size_in_bytes,
            "temporary": memory.temp_size_in_bytes,
        }

    def __call__(self):
        self._state, metrics = self._step(self._state, *self._arguments)
        return self._state, metrics
