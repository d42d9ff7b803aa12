"""A script that takes the gradient of a small ResNet: what it comes to, and how it was compiled.

python -m tests.experiments.resnet_gradient --workdir=FOLDER
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from experiments.cli import WORKDIR, run_app
from experiments.runs.provenance import device_name
from otrw_jax.files import write_json
from otrw_jax.models.backbones.resnet_cifar import ResNetCifar

BATCH = 64


def main(argv: list[str]) -> None:
    """Compiles the gradient, takes it once, and writes both."""
    del argv
    taken = []
    jax.monitoring.register_event_listener(
        lambda event, **_: taken.append(event) if event.endswith("/cache_hits") else None
    )
    network = ResNetCifar(depth=8, width=8)
    images = np.random.default_rng(0).normal(size=(BATCH, 16, 16, 3)).astype(np.float32)
    shapes = jax.eval_shape(lambda: network.init(jax.random.key(0), images, train=False))
    rng = np.random.default_rng(1)
    variables = jax.tree.map(lambda x: rng.uniform(0.1, 0.3, x.shape).astype(x.dtype), shapes)

    def loss(params):
        found = {**variables, "params": params}
        z, _ = network.apply(found, images, train=True, mutable=["batch_stats"])
        return jnp.mean(jnp.tanh(z) ** 2)

    gradient = jax.jit(jax.value_and_grad(loss)).lower(variables["params"]).compile()
    folder = pathlib.Path(WORKDIR.value)
    np.save(folder / "gradient.npy", ravel_pytree(gradient(variables["params"]))[0])
    about = {
        "taken": len(taken),
        "kernels": gradient.as_text().count("kind=kCustom"),
        "device": device_name(),
    }
    write_json(folder / "about.json", about)


if __name__ == "__main__":
    run_app(main, "workdir")
