"""Branches: a network of two is two networks that share all but the last block."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from otrw_jax.models.backbones.mlp import MLP
from otrw_jax.models.backbones.pointnet import PointNet
from otrw_jax.models.backbones.pointnet2 import PointNet2
from otrw_jax.models.backbones.resnet_cifar import ResNetCifar
from otrw_jax.models.branches import has_branch, keep_branch
from otrw_jax.models.heads import LinearHead
from otrw_jax.models.model import count_parameters, flax_model

INPUTS = jnp.asarray(np.random.default_rng(0).normal(size=(3, 8, 8, 3)), jnp.float32)
CLOUDS = INPUTS.reshape(3, 64, 3)
LEVEL = {"points": (4,), "radii": (1.0,), "neighbours": (5,), "widths": ((4,), (6,))}
NETWORKS = [
    ("Dense_1", INPUTS, partial(MLP, (6, 4))),
    ("stage3_block1", INPUTS, partial(ResNetCifar, depth=8, width=2)),
    ("hidden", CLOUDS, partial(PointNet, (4, 6), (5, 3))),
    ("hidden", CLOUDS, partial(PointNet2, hidden=(5, 3), **LEVEL)),
]


@pytest.mark.parametrize(("last", "inputs", "network"), NETWORKS)
def test_features_are_those_of_two_networks_side_by_side(last, inputs, network):
    single, double = network(), network(branches=2)
    shapes = jax.eval_shape(lambda x: double.init(jax.random.key(0), x, train=False), inputs)
    rng = np.random.default_rng(1)
    variables = jax.tree.map(lambda x: rng.uniform(0.2, 1, x.shape).astype(x.dtype), shapes)

    def of_branch(branch):
        """The variables of a network that has one branch as its last block."""
        return {
            kind: {
                name.removesuffix(f"_branch{branch}"): part
                for name, part in parts.items()
                if "_branch" not in name or name.endswith(f"_branch{branch}")
            }
            for kind, parts in variables.items()
        }

    run = jax.jit(lambda v, x: single.apply(v, x, train=False))
    wanted = [run(of_branch(branch), inputs) for branch in (1, 2)]
    assert last in of_branch(1)["params"]
    found = jax.jit(lambda v, x: double.apply(v, x, train=False))(variables, inputs)
    np.testing.assert_allclose(found, np.concatenate(wanted, axis=1), rtol=1e-5)


def test_parameters_of_resnet_32_with_two_branches():
    model = flax_model(ResNetCifar(branches=2), LinearHead(10))
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((2, 32, 32, 3)))
    block = 2 * 9 * 64**2 + 2 * 2 * 64
    assert count_parameters(variables["params"]) == 464_154 + block + 64 * 10
    assert variables["params"]["head"]["Dense_0"]["kernel"].shape == (128, 10)
    assert {name for name in variables["state"]["batch_stats"] if "branch" in name} == {
        "stage3_block5_branch1",
        "stage3_block5_branch2",
    }


@pytest.mark.parametrize(("last", "inputs", "network"), NETWORKS)
def test_no_branch_is_an_error(last, inputs, network):
    del last
    with pytest.raises(ValueError, match="branches is 0; it must be 1 or more"):
        jax.eval_shape(
            lambda x: network(branches=0).init(jax.random.key(0), x, train=False), inputs
        )


def test_a_branch_is_kept():
    def tree(value):
        part = {"norm": {"mean": value}}
        return {"batch_stats": {"last_branch1": part, "last_branch2": part, "trunk": part}}

    kept = keep_branch(tree(0), tree(1), 1)
    wanted = tree(1)
    wanted["batch_stats"]["last_branch2"] = {"norm": {"mean": 0}}
    assert kept == wanted
    assert keep_branch({}, {}, 0) == {}
    assert has_branch(tree(0), 1)
    assert not has_branch(tree(0), 2)
