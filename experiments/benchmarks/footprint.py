"""What a step sends between devices and what the closed form needs of memory, by the program.

Nothing is run: the step is traced with abstract arrays, and its collectives are read off.
"""

import collections
import dataclasses
import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from experiments.documents.markdown import table
from otrw_jax import (
    Batch,
    Examples,
    TrainingData,
    combined_cost,
    erm,
    flax_model,
    optimal_weights,
    ot_reweight,
)
from otrw_jax.methods.presets import global_weights, paper
from otrw_jax.models.backbones.resnet_imagenet import ResNetImageNet
from otrw_jax.models.heads import LinearHead
from otrw_jax.models.model import count_parameters
from otrw_jax.ot.closed_form import optimal_weights_by_rows
from otrw_jax.training.devices import AXIS_NAME

DEVICES = (8, 256)
EXAMPLES, CLASSES, META_PER_CLASS, SIDE = 115_846, 1000, 10, 224  # ImageNet-LT.
LINKS = {"450 GB/s": 450e9, "50 GB/s": 50e9, "12.5 GB/s": 12.5e9}
"""One way, a device: NVLink of a current GPU; InfiniBand of 400 Gb/s; Ethernet of 100 Gb/s."""
MEMORY = {"16 GB": 16e9, "80 GB": 80e9}


@dataclasses.dataclass(frozen=True)
class Collective:
    """One kind of collective of a step.

    Attributes:
        kind: what is moved.
        reduced: whether it is summed; gathered otherwise.
        size: bytes of the result on a device.
    """

    kind: str
    reduced: bool
    size: int

    def moved(self, devices: int) -> float:
        """Bytes that a device sends, with the algorithms of a ring."""
        return (2 if self.reduced else 1) * (devices - 1) / devices * self.size


def traffic(per_device: int) -> str:
    """The table of the collectives of a step of ResNet-50 on ImageNet-LT."""
    rows = []
    for name, make in METHODS.items():
        for devices in DEVICES:
            step, arguments = abstract_step(make, devices, per_device)
            found = collectives(step, arguments, devices)
            total = sum(one.moved(devices) for one in found)
            for one in found:
                rows.append(
                    [
                        name,
                        str(devices),
                        one.kind,
                        size(one.size),
                        size(one.moved(devices)),
                        *[""] * 3,
                    ]
                )
            times = [f"{1e3 * total / speed:.2f} ms" for speed in LINKS.values()]
            rows.append([name, str(devices), "all", "", size(total), *times])
    network, _ = abstract_network()
    header = ["step", "devices", "collective", "result", "sent by a device", *LINKS]
    return "\n\n".join(
        [
            f"ResNet-50 and {CLASSES:,} classes ({network:,} parameters), {EXAMPLES:,} examples, "
            f"{per_device} a device, {META_PER_CLASS} meta images a class. *Result* is what a "
            "collective leaves on each device; *sent* counts a ring, 2 (D - 1) / D of a sum and "
            "(D - 1) / D of a gathering; the last columns are the time of all of a step's at "
            "that speed of a device's link, one way, nothing of it hidden behind computation.",
            table(header, rows),
        ]
    )


def abstract_network():
    """Number of parameters, and the network with batch statistics over the axis."""
    model = flax_model(ResNetImageNet(50, axis_name=AXIS_NAME), LinearHead(CLASSES))
    image = jax.ShapeDtypeStruct((1, SIDE, SIDE, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), image)
    return count_parameters(variables["params"]), model


def abstract_step(make, devices: int, per_device: int):
    """A method's step and abstract arguments for one device of an axis."""
    _, model = abstract_network()
    image = (SIDE, SIDE, 3)
    shape: Any = jax.ShapeDtypeStruct

    def examples(count):
        return Examples(shape((count, *image), jnp.float32), shape((count,), jnp.int32))

    variables = jax.eval_shape(model.init, jax.random.key(0), examples(1).inputs)
    meta = examples(CLASSES * META_PER_CLASS)
    labels = shape((EXAMPLES,), jnp.int32)
    data = TrainingData(Examples(None, labels), meta, CLASSES)
    method = make(model)
    state = jax.eval_shape(method.init, jax.random.key(0), variables, data)
    own, ids = examples(per_device), shape((per_device,), jnp.int32)
    batch = Batch(own.inputs, own.labels, ids)
    return method.step, (state, batch, meta)


def _ot(config):
    def make(model):
        optimizer = optax.sgd(0.1, momentum=0.9)
        return ot_reweight(model, optimizer, optax.sgd(0.1), CLASSES, config, axis_name=AXIS_NAME)

    return make


METHODS = {
    "cross-entropy": lambda model: erm(model, optax.sgd(0.1, momentum=0.9), axis_name=AXIS_NAME),
    "`paper`": _ot(paper(CLASSES)),
    "`paper`, a problem a device": _ot(dataclasses.replace(paper(CLASSES), problem="device")),
    "`global`, label cost": _ot(dataclasses.replace(global_weights(CLASSES), cost="label")),
}


def collectives(step, arguments, devices: int) -> list[Collective]:
    """The collectives of a step, those of a kind added up, in the order of their size."""
    trace = jax.make_jaxpr(step, axis_env=[(AXIS_NAME, devices)])(*arguments)
    sizes: collections.Counter = collections.Counter()
    for equation, times in _equations(trace.jaxpr):
        name = equation.primitive.name
        if name in ("psum", "all_gather", "pmax", "psum_invariant", "all_gather_invariant"):
            reduced = not name.startswith("all_gather")
            for result in equation.outvars:
                kind = _kind(equation, result.aval, reduced)
                sizes[kind, reduced] += times * result.aval.size * result.aval.dtype.itemsize
    found = [Collective(kind, reduced, count) for (kind, reduced), count in sizes.items()]
    return sorted(found, key=lambda one: -one.size)


def _kind(equation, result, reduced):
    if not reduced:
        return "gather: OT problem" if result.ndim > 1 else "gather: labels, ids, weights"
    if "norm" in str(equation.source_info.name_stack):
        return "sum: batch statistics"
    return "sum: gradients" if result.size > 1 else "sum: metrics"


def _equations(jaxpr, times=1):
    """All equations, with how often each is run."""
    for equation in jaxpr.eqns:
        yield equation, times
        inner = (
            times * equation.params.get("length", 1) if equation.primitive.name == "scan" else times
        )
        for value in equation.params.values():
            for one in value if isinstance(value, tuple | list) else (value,):
                one = getattr(one, "jaxpr", one)
                if hasattr(one, "eqns"):
                    yield from _equations(one, inner)


def memory() -> str:
    """The table of what the closed form needs, whole and by rows."""
    n, k, d = 1 << 15, 1024, 64
    features = 4 * 2048
    entry = (_bytes(_whole, n, k, d) - 4 * d * n) / (n * k)
    once, twice = (_bytes(_by_rows, count, k, d) for count in (n, 2 * n))
    example = (twice - once) / n - 4 * d
    fixed = once - (twice - once)
    rows = [
        [
            name,
            f"{room / entry:.2g}",
            *(f"{room / (entry * classes + features):.2g}" for classes in (1000, 8142)),
            f"{(room - fixed) / (example + features):.2g}",
        ]
        for name, room in MEMORY.items()
    ]
    header = ["memory of a device", "largest N·K", "N at K = 1,000", "N at K = 8,142"]
    return "\n\n".join(
        [
            f"The closed form of the global problem, whole, takes {entry:.1f} bytes for each entry "
            "of the cost beside the features, as compiled here; by rows, which is what the method "
            f"does, 8,192 at a time, {math.ceil(example):,} bytes for each example beside its "
            f"features, and {size(fixed)} for K = {k:,}. N is that of a device's share, with "
            "features of 2,048 numbers; N·K is without them.",
            table([*header, "N by rows"], rows),
        ]
    )


def _whole(z, labels, atoms):
    return optimal_weights(combined_cost(z, labels, atoms, jnp.arange(atoms.shape[0])))


def _by_rows(z, labels, atoms):
    k = atoms.shape[0]

    def cost(rows):
        return combined_cost(z[rows], labels[rows], atoms, jnp.arange(k))

    return optimal_weights_by_rows(cost, z.shape[0], jnp.full((k,), 1 / k))


def _bytes(function, n, k, d):
    """Bytes of arguments, results and what is in between, of the compiled function."""
    shape = partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
    arguments = shape((n, d)), jax.ShapeDtypeStruct((n,), jnp.int32), shape((k, d))
    found = jax.jit(function).lower(*arguments).compile().memory_analysis()
    return found.argument_size_in_bytes + found.output_size_in_bytes + found.temp_size_in_bytes


def size(count: float) -> str:
    """Bytes with three digits."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
