"""Stages of recipes against what their authors' programs compute on a small problem.

The values are those of PyTorch 2.13 on the numbers of `PROBLEM`, by the authors' own functions:
`LDAMLoss` of kaidic/LDAM-DRW (losses.py), `IBLoss` and `adjust_learning_rate` of pseulki/IB-Loss
(losses.py, cifar_train.py), `GRWCrossEntropyLoss` and `DisAlignLinear` of Megvii-BaseDetection/
cvpods, on which DisAlign stands. A step is SGD of rate 0.1, without momentum or decay.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.configs import cifar_lt, digits
from experiments.program.networks import make_model
from experiments.recipes import RECIPES, make_stages
from experiments.recipes.optimizers import learning_rate
from otrw_jax.methods.base import Batch, Examples, TrainingData

K, DIM = 3, 4
COUNTS = np.array([40, 10, 3])
COUNTS10 = np.arange(5000, 0, -500)


def make_problem():
    """Features and labels of a batch, and a linear layer."""
    rng = np.random.RandomState(1)
    labels = rng.permutation(np.repeat(np.arange(K), (7, 3, 2)))
    features = rng.normal(size=(12, DIM))
    kernel, bias = rng.normal(size=(DIM, K)), rng.normal(size=K)
    return jnp.asarray(labels, jnp.int32), *map(jnp.float32, (features, kernel, bias))


LABELS, FEATURES, KERNEL, BIAS = make_problem()
# fmt: off
LDAM_BEFORE = (
    -1.274147, -0.4474779, -0.4741699, 1.071769, 0.8074728, 1.043238,
    0.7091212, 0.4243569, -0.6621192, 0.809132, 1.292789, 0.0045296,
)
LDAM_AFTER = (
    -1.171116, -0.3070846, -0.8376395, 1.297642, 0.9075246, 1.039806,
    0.4860433, 0.5650647, -0.637358, 0.8481795, 0.9819425, 0.1858538,
)
IB = (
    -1.11599, -0.3496571, -0.2351077, 0.6143115, 0.8252459, 0.9171514,
    0.2682931, 0.8618773, -0.7138398, 1.196786, 0.5325742, -0.2616547,
)
IB_CB = (
    -1.11599, -0.3496605, -0.2351042, 0.6143101, 0.8252436, 0.917155,
    0.2683057, 0.8618727, -0.7138478, 1.196771, 0.5325842, -0.2616503,
)
# fmt: on
IB_BIAS, IB_CB_BIAS = (0.446584, -0.06752104, 1.165513), (0.4466075, -0.06752016, 1.165488)
DISALIGN = {  # After two steps; the scale starts at one.
    "scale": (0.8622358, 0.9716665, 0.9977291),
    "bias": (-0.05068649, 0.003375117, 0.04731138),
    "confidence_kernel": (0.09806775, 0.09923171, 0.1027369, 0.1026108),
    "confidence_bias": 0.002928927,
}
IB_RATES = {0: 0.1, 99: 0.1, 100: 1e-3, 159: 1e-3, 160: 1e-5, 179: 1e-5, 180: 1e-7}


def steps_of(recipe, head, steps=1, **options):
    """The parameters of the head after steps of a recipe's last stage on the batch."""
    config = digits.get_config(f"recipe={recipe}")
    config.model.hidden = ()
    for section in (config.stage1, config.stage2.get(recipe, config.stage1)):
        section.batch_size = 12
        section.optimizer.update({"learning_rate": 0.1, "momentum": 0.0, "weight_decay": 0.0})
    config.options[recipe].update(options)
    model = make_model(config.model, K, head=RECIPES[recipe].head)
    method = make_stages(config, model, COUNTS)[-1].method
    variables = {"params": {"backbone": {}, "head": head}, "state": {}}
    batch = Batch(FEATURES, LABELS, jnp.arange(12))
    data = TrainingData(Examples(FEATURES, LABELS), None, K)
    state = method.init(jax.random.key(0), variables, data)
    step = jax.jit(method.step)
    for _ in range(steps):
        state, _ = step(state, batch, None)
    return state.variables["params"]["head"]


META_AUGMENTATION = {
    **dict.fromkeys(("mwn", "mcw_ce", "mcw_focal", "mcw_ldam"), "step"),
    **dict.fromkeys(("metasaug_ce", "metasaug_focal", "metasaug_ldam"), "step"),
    "otrw_released": "epoch",
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_meta_set_is_augmented_where_the_authors_do(recipe):
    config = cifar_lt.get_config(f"recipe={recipe}")
    config.model = digits.get_config().model  # Stages are made without a pass of the network.
    stages = make_stages(config, make_model(config.model, 10, head=RECIPES[recipe].head), COUNTS10)
    assert stages[-1].augment_meta == META_AUGMENTATION.get(recipe, "never")
    assert all(stage.augment_meta == "never" for stage in stages[:-1])


@pytest.mark.parametrize("recipe", ["metasaug_ce", "metasaug_focal", "metasaug_ldam"])
def test_covariances_are_full_or_diagonal_as_the_config_says(recipe):
    """A state has a matrix a class, 64² of digits, or none."""
    config = digits.get_config(f"recipe={recipe}")
    for covariance in ("full", "diagonal"):
        config.options[recipe].covariance = covariance
        model = make_model(config.model, 10, head=RECIPES[recipe].head)
        (stage,) = make_stages(config, model, COUNTS10)
        examples = Examples(jnp.zeros((10, 8, 8, 1)), jnp.arange(10))

        def start(init=stage.method.init, model=model, examples=examples):
            variables = model.init(jax.random.key(0), examples.inputs)
            data = TrainingData(examples._replace(inputs=None), examples, 10)
            return init(jax.random.key(0), variables, data)

        shapes = {leaf.shape for leaf in jax.tree.leaves(jax.eval_shape(start))}
        assert ((10, 64, 64) in shapes) == (covariance == "full")


@pytest.mark.parametrize("start, wanted", [(1.0, LDAM_BEFORE), (0.0, LDAM_AFTER)])
def test_deferred_weights_are_divided_by_their_sum(start, wanted):
    head = steps_of("ldam_drw", {"kernel": KERNEL}, start=start)
    np.testing.assert_allclose(np.ravel(head["kernel"]), wanted, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize(
    "recipe, wanted, bias", [("ib", IB, IB_BIAS), ("ib_cb", IB_CB, IB_CB_BIAS)]
)
def test_influence_balanced_steps_are_a_hundredth_as_long(recipe, wanted, bias):
    head = steps_of(recipe, {"Dense_0": {"kernel": KERNEL, "bias": BIAS}}, start=0.0, alpha=1000.0)
    np.testing.assert_allclose(np.ravel(head["Dense_0"]["kernel"]), wanted, rtol=2e-5)
    np.testing.assert_allclose(head["Dense_0"]["bias"], bias, rtol=2e-5)


def test_the_rate_of_influence_balancing_by_the_epoch():
    config = cifar_lt.get_config("recipe=ib")
    options = config.options.ib
    drop = round(options.start * config.stage1.epochs) * 10, options.rate_factor
    rate = learning_rate(config.stage1.optimizer, 10, config.stage1.epochs, drop)
    found = {epoch: float(rate(10 * epoch)) for epoch in IB_RATES}
    assert found == pytest.approx(IB_RATES, rel=1e-5)


def test_disalign_divides_by_the_weights_of_the_batch():
    head = steps_of("disalign", {"Dense_0": {"kernel": KERNEL, "bias": BIAS}}, steps=2)
    for name, wanted in DISALIGN.items():
        np.testing.assert_allclose(head[name], wanted, rtol=2e-5, err_msg=name)
