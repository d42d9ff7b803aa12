"""Epochs of long-tailed CIFAR-10 against the same loop in eager PyTorch."""

import dataclasses
import statistics
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.timing import Effort, interleaved, median_ratio
from experiments.configs.cifar_lt import get_config
from experiments.documents.markdown import number, table
from experiments.program.networks import make_model
from experiments.recipes.optimizers import make_optimizer
from otrw_jax import Examples, OTReweighting, TrainingData, erm, ot_reweight
from otrw_jax.data.images import preprocessing
from otrw_jax.data.splits import long_tailed_counts
from otrw_jax.methods.presets import paper
from otrw_jax.training.features import given_features, pick_copy
from otrw_jax.training.loop import make_loop
from otrw_jax.training.stages import DeviceData, Stage

NUM_CLASSES, META_PER_CLASS, COPIES = 10, 10, 5
FEATURES = 64
HEAD = OTReweighting(trainable="head/.*", batch_norm=False, meta_features="refresh")

LEVELS = {  # Goals on a CPU and on a GPU.
    "whole": ("stage 2, whole network", 16, 1.5, 10.0),
    "frozen": ("stage 2, head over a frozen backbone", 16, None, None),
    "kept": ("stage 2, head on kept features", 16, 10.0, 10.0),
    "stage1": ("stage 1, cross-entropy", 128, None, None),
}


def run(effort: Effort) -> list[dict]:
    """One record for each kind of epoch."""
    counts = long_tailed_counts(NUM_CLASSES, 4990, get_config().data.imbalance_factor)
    examples = int(counts.sum())
    on_cpu = jax.default_backend() == "cpu"
    records = []
    for name, (title, batch_size, cpu_goal, gpu_goal) in LEVELS.items():
        if name == "frozen" and not effort.largest:
            continue
        steps = examples // batch_size
        # A network's epoch takes minutes on a CPU: some steps of it are measured there.
        few_steps = 1 if batch_size > 16 else 2
        ours_steps = few_steps if on_cpu and name != "kept" else steps
        their_steps = (50 if name == "kept" else few_steps) if on_cpu else min(steps, 100)
        calls = {"ours": ours(name, batch_size, ours_steps, counts)}
        for stop in ("converged", "loose") if name == "kept" else ("loose",):
            calls[stop] = _theirs(name, batch_size, their_steps, stop)
        few = dataclasses.replace(effort, minimum_seconds=0.0, repeats=5)
        seconds = interleaved(calls, few)
        taken = {key: ours_steps if key == "ours" else their_steps for key in calls}
        epochs = {key: [s * steps / taken[key] for s in seconds[key]] for key in calls}
        for stop in calls.keys() - {"ours"}:
            records.append(
                {
                    "section": "epoch",
                    "name": title + (f", {stop}" if name == "kept" else ""),
                    "batch_size": batch_size,
                    "steps": steps,
                    "steps_measured": [taken["ours"], taken[stop]],
                    "seconds": statistics.median(epochs["ours"]),
                    "pytorch_seconds": statistics.median(epochs[stop]),
                    "repeats": [epochs["ours"], epochs[stop]],
                    "ratio": median_ratio(epochs[stop], epochs["ours"]),
                    "images_per_second": steps * batch_size / statistics.median(epochs["ours"]),
                    "goal": cpu_goal if on_cpu else gpu_goal,
                }
            )
    return records + [_convolutions(batch_size, effort) for batch_size in (16, 128)]


def markdown(records: list[dict]) -> str:
    """The section's title, text and tables."""
    rows = []
    convolutions = [r for r in records if r["section"] == "convolutions"]
    for r in records:
        if r in convolutions:
            continue
        goal = "–"
        if r["goal"]:
            goal = f"≥ {r['goal']:g}, {'met' if r['ratio'] >= r['goal'] else 'missed'}"
        rows.append(
            [
                r["name"],
                str(r["batch_size"]),
                number(r["seconds"]),
                number(r["pytorch_seconds"]),
                number(r["ratio"]),
                f"{r['images_per_second']:,.0f}",
                f"{r['steps_measured'][0]}, {r['steps_measured'][1]}",
                goal,
            ]
        )
    header = ["epoch", "batch", "ours, s", "PyTorch, s", "PyTorch / ours", "ours, images/s"]
    return "\n\n".join(
        [
            "### Epochs against PyTorch",
            "ResNet-32, long-tailed CIFAR-10 of imbalance factor 100 (random pixels), crop and "
            "flip on the device; the same arithmetic in eager PyTorch, its Sinkhorn loop with "
            "the loose stop unless said. *Whole network* is the `paper` preset. The *frozen "
            "backbone* passes each batch; *kept features* are computed before, "
            f"{COPIES} copies of each image. An epoch's seconds are those of the measured steps, "
            "scaled.",
            table([*header, "steps measured", "goal"], rows),
            "Where the time of a whole network's step goes: the 3×3 convolutions of ResNet-32's "
            "three resolutions, ten of each, forward and both gradients, each timed by itself.",
            table(
                ["batch", "ours, ms", "PyTorch, ms", "PyTorch / ours"],
                [
                    [
                        str(r["batch_size"]),
                        number(1e3 * r["seconds"]),
                        number(1e3 * r["pytorch_seconds"]),
                        number(r["ratio"]),
                    ]
                    for r in convolutions
                ],
            ),
        ]
    )


def _convolutions(batch_size: int, effort: Effort) -> dict:
    """Seconds of the convolutions of a step, in both libraries."""
    import torch
    import torch.nn.functional as F

    device = "cuda" if torch.cuda.is_available() else "cpu"
    calls: dict[str, list] = {"ours": [], "theirs": []}
    for side, channels in ((32, 16), (16, 32), (8, 64)):
        images = (batch_size, side, side, channels)
        x, out = (jax.random.normal(jax.random.key(n), images) for n in (0, 1))
        w = jax.random.normal(jax.random.key(2), (3, 3, channels, channels))
        calls["ours"].append(partial(_convolve, x, w, out))
        tx = torch.randn(batch_size, channels, side, side, device=device, requires_grad=True)
        tw = torch.randn(channels, channels, 3, 3, device=device, requires_grad=True)

        def theirs(x=tx, w=tw):
            y = F.conv2d(x, w, padding=1)
            gradients = torch.autograd.grad(y, (x, w), y.detach())
            if device == "cuda":
                torch.cuda.synchronize()
            return [gradient.shape for gradient in gradients]

        calls["theirs"].append(theirs)
    seconds = interleaved(
        {key: partial(_all, functions) for key, functions in calls.items()}, effort
    )
    return {
        "section": "convolutions",
        "batch_size": batch_size,
        "seconds": 10 * statistics.median(seconds["ours"]),
        "pytorch_seconds": 10 * statistics.median(seconds["theirs"]),
        "repeats": seconds,
        "ratio": median_ratio(seconds["theirs"], seconds["ours"]),
    }


@jax.jit
def _convolve(x, w, out):
    def convolve(x, w):
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=numbers)

    y, pullback = jax.vjp(convolve, x, w)
    return y, pullback(out)


def _all(functions):
    return [function() for function in functions]


def ours(name: str, batch_size: int, steps: int, counts: np.ndarray) -> Callable:
    """An epoch of so many steps, compiled at its first call.

    Args:
        name: of a level.
        batch_size: examples a step.
        steps: of the epoch.
        counts: [K], examples of each class of the whole set.
    """
    config = get_config()
    rng = np.random.default_rng(0)
    images = preprocessing("cifar10")
    model = make_model(config.model, NUM_CLASSES)
    stage2 = config.stage2.otrw_paper
    optimizer = make_optimizer(stage2.optimizer, 1)
    weight_optimizer = make_optimizer(stage2.weight_optimizer, 1)

    # As many examples as the measured steps take, of the same share of classes.
    labels = rng.choice(NUM_CLASSES, steps * batch_size, p=counts / counts.sum())
    labels = jnp.asarray(labels, jnp.int32)
    meta_labels = jnp.repeat(jnp.arange(NUM_CLASSES), META_PER_CLASS)

    def pixels(count):
        return jnp.asarray(rng.integers(0, 256, (count, 32, 32, 3), np.uint8))

    variables = model.init(jax.random.key(0), jnp.zeros((2, 32, 32, 3)))
    if name == "kept":
        raw = Examples(jnp.asarray(rng.random((len(labels), COPIES, FEATURES), np.float32)), labels)
        meta = Examples(
            jnp.asarray(rng.random((len(meta_labels), FEATURES), np.float32)), meta_labels
        )
        prepare, model = pick_copy, given_features(model)
    else:
        raw = Examples(pixels(len(labels)), labels)
        meta = Examples(images.evaluate(pixels(len(meta_labels))), meta_labels)
        prepare = images.train
    data = DeviceData(raw, TrainingData(Examples(None, labels), meta, NUM_CLASSES))
    if name == "stage1":
        method = erm(model, make_optimizer(config.stage1.optimizer, steps))
    else:
        choices = paper(NUM_CLASSES) if name == "whole" else HEAD
        method = ot_reweight(model, optimizer, weight_optimizer, NUM_CLASSES, choices)
    on_cpu = jax.default_backend() == "cpu" and name != "kept"
    loop = make_loop(Stage(name, method, 1, batch_size), prepare, steps_per_call=1 if on_cpu else 0)
    state = [loop.start(jax.random.key(1), variables, data)]

    def epoch():
        state[0], metrics = loop.epoch(state[0], data, jax.random.key(2))
        return metrics["loss"]

    return epoch


def _theirs(name: str, batch_size: int, steps: int, stop: str) -> Callable:
    import torch
    import torch.nn.functional as F

    from experiments.benchmarks import pytorch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    network = pytorch.ResNet(NUM_CLASSES).to(device)
    count = steps * batch_size
    labels = torch.randint(0, NUM_CLASSES, (count,), device=device)
    values = torch.ones(count, device=device)
    meta_labels = torch.arange(NUM_CLASSES, device=device).repeat_interleave(META_PER_CLASS)
    stop = pytorch.CONVERGED if stop == "converged" else pytorch.LOOSE
    if name == "kept":
        inputs = torch.rand(count, COPIES, FEATURES, device=device)
    else:
        inputs = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, device=device)
    if name == "whole":
        meta = torch.rand(len(meta_labels), 3, 32, 32, device=device)
    else:  # Of a frozen backbone, the features of the meta set do not change.
        meta = torch.rand(len(meta_labels), FEATURES, device=device)
    if name == "stage1":
        network.train()
        optimizer = torch.optim.SGD(network.parameters(), 0.1, 0.9, weight_decay=5e-4)
    else:
        stage = pytorch.Stage2(network, NUM_CLASSES, name != "whole", name == "kept")

    def epoch():
        order = torch.randperm(count, device=device)
        for ids in order.split(batch_size):
            if name == "kept":
                copies = torch.randint(0, COPIES, (len(ids),), device=device)
                batch = inputs[ids, copies]
            else:
                batch = pytorch.crop_and_flip(inputs[ids])
            if name == "stage1":
                optimizer.zero_grad()
                F.cross_entropy(network(batch)[1], labels[ids]).backward()
                optimizer.step()
            else:
                values[ids] = stage.step(batch, labels[ids], values[ids], (meta, meta_labels), stop)
        if device == "cuda":
            torch.cuda.synchronize()
        return values.cpu().numpy()

    return epoch
