import numpy as np
import pytest
from ml_collections import ConfigDict

from experiments.configs import cifar_lt, digits, modelnet10, sst
from experiments.program.networks import make_model
from experiments.recipes import RECIPES, make_stages, recipe_name
from experiments.recipes.optimizers import make_optimizer
from otrw_jax.data.images import preprocessing
from otrw_jax.data.splits import make_split


def cifar_stage2(recipe, dataset="cifar100"):
    return cifar_lt.get_config(f"dataset={dataset},recipe={recipe}").stage2[recipe]


def fields(section, *names):
    return {name: section[name] for name in names}


def sgd_fields(optimizer):
    names = ("name", "learning_rate", "momentum", "nesterov", "weight_decay", "milestones")
    return tuple(optimizer[name] for name in names)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("get_config", [digits.get_config, cifar_lt.get_config])
def test_every_recipe_builds(get_config, recipe):
    config = get_config(f"recipe={recipe}")
    assert config.recipe == recipe
    preprocessing(config.data.name, config.data.augment, config.data.padding)
    two = RECIPES[recipe].second is not None
    stages = make_stages(config, make_model(config.model, 10), np.full(10, 100))
    assert [stage.name for stage in stages] == ["stage1", "stage2"][: 1 + two]
    assert (stages[0].epochs, stages[0].batch_size) == (
        config.stage1.epochs,
        config.stage1.batch_size,
    )
    if two:
        section = config.stage2[recipe]
        assert (stages[1].epochs, stages[1].batch_size) == (section.epochs, section.batch_size)


def test_every_second_stage_is_a_recipe():
    for config in (digits.get_config(), cifar_lt.get_config()):
        two = {name for name, recipe in RECIPES.items() if recipe.second is not None}
        assert set(config.stage2) == two
        assert set(config.options) == {name for name, r in RECIPES.items() if r.options}


def test_arguments_of_the_digits():
    config = digits.get_config("recipe=cb,imbalance_factor=10")
    assert (config.recipe, config.data.imbalance_factor) == ("cb", 10.0)
    assert digits.get_config().data.imbalance_factor == 50.0


def test_arguments_of_cifar():
    config = cifar_lt.get_config(
        "dataset=cifar100,imbalance_factor=20,family=ldam,recipe=ce,seed=3,held_out=2"
    )
    assert (config.recipe, config.seed, config.subset_seed) == ("ce", 3, 3)
    assert fields(config.data, "name", "imbalance_factor", "held_out_per_class") == {
        "name": "cifar100",
        "imbalance_factor": 20.0,
        "held_out_per_class": 2,
    }
    assert cifar_lt.get_config("dataset=cifar100").data.held_out_per_class == 10
    assert cifar_lt.get_config("dataset=cifar10").data.held_out_per_class == 100
    assert cifar_lt.get_config("held_out=0").data.held_out_per_class == 0


@pytest.mark.parametrize(
    ("get_config", "arguments", "message"),
    [
        (cifar_lt.get_config, "imbalance=10", "'imbalance'; did you mean 'imbalance_factor'"),
        (cifar_lt.get_config, "dataset=cifar10,sed=1", "'sed'; did you mean 'seed'"),
        (digits.get_config, "recipee=ce", "'recipee'; did you mean 'recipe'"),
        (digits.get_config, "ce", "unknown config argument 'ce'"),
        (cifar_lt.get_config, "seed=x", "seed='x' is not of type int"),
        (cifar_lt.get_config, "imbalance_factor=", "imbalance_factor='' is not of type float"),
        (cifar_lt.get_config, "dataset=cifar", "'cifar'; choose cifar10 or cifar100"),
        (cifar_lt.get_config, "family=mnist", "'mnist'; choose meta or ldam"),
    ],
)
def test_a_wrong_argument_is_told(get_config, arguments, message):
    with pytest.raises(ValueError, match=message):
        get_config(arguments)


def test_an_unknown_recipe_suggests_the_nearest():
    with pytest.raises(ValueError, match="'otrw_papr' is unknown; did you mean 'otrw_paper'"):
        recipe_name("otrw_papr")
    assert recipe_name("otrw") == "otrw_paper"
    assert [recipe_name(name) for name in RECIPES] == list(RECIPES)


def test_unknown_networks_and_optimisers_are_told():
    with pytest.raises(ValueError, match=r"model.name is 'vgg'; choose mlp, resnet_cifar"):
        make_model(ConfigDict({"name": "vgg"}), 10)
    with pytest.raises(ValueError, match=r"optimizer.name is 'lion'; choose sgd or adam"):
        make_optimizer(ConfigDict({"name": "lion"}), 1)


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        (
            "meta",
            {
                "meta_per_class": 10,
                "padding": "reflect",
                "batch_size": 100,
                "weight_decay": 5e-4,
                "warmup_epochs": 0,
                "largest": {"cifar10": 4990, "cifar100": 490},
            },
        ),
        (
            "ldam",
            {
                "meta_per_class": 0,
                "padding": "zero",
                "batch_size": 128,
                "weight_decay": 2e-4,
                "warmup_epochs": 5,
                "largest": {"cifar10": 5000, "cifar100": 500},
            },
        ),
    ],
)
@pytest.mark.parametrize(("dataset", "classes"), [("cifar10", 10), ("cifar100", 100)])
def test_the_families_of_cifar(dataset, classes, family, expected):
    config = cifar_lt.get_config(f"dataset={dataset},family={family},held_out=0")
    first = config.stage1
    found = {
        **fields(config.data, "meta_per_class", "padding"),
        "batch_size": first.batch_size,
        **fields(first.optimizer, "weight_decay", "warmup_epochs"),
    }
    largest = expected["largest"][dataset]
    assert found == {name: value for name, value in expected.items() if name != "largest"}
    assert first.epochs == 200
    assert sgd_fields(first.optimizer)[:4] == ("sgd", 0.1, 0.9, False)
    assert (first.optimizer.milestones, first.optimizer.decay) == ((160, 180), 0.01)
    assert config.model.to_dict() == {
        "name": "resnet_cifar",
        "depth": 32,
        "width": 16,
        "dtype": "float32",
    }
    assert (config.data.augment, config.data.profile) == (True, "exponential")
    split = make_split(
        np.repeat(np.arange(classes), 50_000 // classes),
        imbalance_factor=config.data.imbalance_factor,
        seed=0,
        meta_per_class=config.data.meta_per_class,
        held_out_per_class=config.data.held_out_per_class,
    )
    assert split.counts[0] == largest
    assert split.counts[-1] == int(largest / 100)
    if family == "meta":
        assert split.counts.sum() == {"cifar10": 12380, "cifar100": 10626}[dataset]


@pytest.mark.parametrize(("dataset", "classes"), [("cifar10", 10), ("cifar100", 100)])
def test_the_authors_program(dataset, classes):
    stage = cifar_stage2("otrw_released", dataset)
    assert (stage.epochs, stage.batch_size) == (90, 16)
    assert sgd_fields(stage.optimizer) == ("sgd", 2e-5, 0.9, True, 5e-4, ())
    assert sgd_fields(stage.weight_optimizer) == ("sgd", 0.01, 0.0, False, 5e-4, ())
    expected = {
        "initial": "effective_number",
        "weighting": "learned",
        "from_scratch": False,
        "sampling": False,
        "simplex": "none",
        "reduction": "sum",
        "meta_cross_entropy": 10.0,
        "cost": "combined",
        "feature_weight": 0.5,
        "label_weight": 1 / classes,
        "measure": "prototype_input",
        "meta_features": "refresh",
        "meta_batch_norm": True,
        "features": "eval_pass",
        "second_order": False,
        "trainable": "head/.*",
        "batch_norm": True,
    }
    assert fields(stage.choices, *expected) == expected
    solver = {"epsilon": 0.1, "max_iterations": 3, "threshold": 0.0, "gradient": "unrolled"}
    assert fields(stage.choices.ot, *solver) == solver


def test_the_papers_text():
    stage = cifar_stage2("otrw_paper")
    assert (stage.epochs, stage.batch_size) == (40, 16)
    assert stage.optimizer.learning_rate == 2e-5
    assert sgd_fields(stage.weight_optimizer) == ("sgd", 1e-3, 0.0, False, 0.0, ())
    expected = {
        "initial": "uniform",
        "weighting": "learned",
        "from_scratch": False,
        "simplex": "normalize",
        "reduction": "sum",
        "meta_cross_entropy": 0.0,
        "cost": "combined",
        "feature_weight": 1.0,
        "label_weight": 1.0,
        "measure": "prototype",
        "meta_features": "step",
        "features": "virtual",
        "second_order": False,
        "virtual_learning_rate": 2e-5,
        "trainable": ".*",
        "batch_norm": True,
    }
    assert fields(stage.choices, *expected) == expected
    assert fields(stage.choices.ot, "epsilon", "gradient") == {
        "epsilon": 0.1,
        "gradient": "implicit",
    }


@pytest.mark.parametrize("recipe", ["otrw_global", "otrw_global_sampling"])
def test_the_global_weights(recipe):
    choices = cifar_stage2(recipe).choices
    expected = {
        "weighting": "global",
        "sampling": recipe == "otrw_global_sampling",
        "meta_features": "refresh",
        "trainable": "head/.*",
        "batch_norm": False,
        "reduction": "mean",
    }
    assert fields(choices, *expected) == expected


@pytest.mark.parametrize("config", [digits.get_config(), cifar_lt.get_config()])
def test_the_virtual_step_is_as_long_as_the_real_one(config):
    for recipe, stage in config.stage2.items():
        if "choices" in stage:
            rate = stage.optimizer.learning_rate
            assert stage.choices.virtual_learning_rate == rate, recipe


def test_the_short_protocol_of_cifar():
    """40 epochs and a cosine; heads as they are; whole-network OT with epochs times rate kept."""
    one, other = (cifar_lt.get_config(f"protocol={name}") for name in cifar_lt.PROTOCOLS)
    first = other.stage1.optimizer
    assert (other.stage1.epochs, other.stage1.batch_size) == (40, 128)
    assert sgd_fields(first) == ("sgd", 0.2, 0.9, True, 5e-4, ())
    assert (first.warmup_epochs, first.schedule) == (4, "cosine")
    stages = [name for name in one.stage2 if one.stage2[name] != other.stage2[name]]
    assert sorted(stages) == ["otrw_net", "otrw_paper", "otrw_released"]
    for name in stages:
        before, after = one.stage2[name], other.stage2[name]
        assert after.epochs < before.epochs and after.batch_size == before.batch_size
        for part in ("optimizer", "weight_optimizer"):
            rates = [stage.epochs * stage[part].learning_rate for stage in (before, after)]
            np.testing.assert_allclose(*rates, rtol=1e-12)
    assert one.data == other.data and one.model == other.model
    with pytest.raises(ValueError, match="protocol='long'; choose paper or short"):
        cifar_lt.get_config("protocol=long")


@pytest.mark.parametrize("family", [digits, cifar_lt, sst, modelnet10])
def test_a_recipe_may_be_chosen_as_an_argument_or_as_a_field(family):
    first = "sst2," if family is sst else ""
    other = family.get_config(f"{first}recipe=ce")
    for recipe in RECIPES:
        other.recipe = recipe
        assert family.get_config(f"{first}recipe={recipe}").to_dict() == other.to_dict()


@pytest.mark.parametrize("get_config", [cifar_lt.get_config, digits.get_config])
def test_a_change_of_one_second_stage_leaves_the_others(get_config):
    config = get_config()
    before = config.stage2.to_dict()
    for section in ("optimizer", "levers"):
        for name in ("cb", "otrw_global"):
            for field in config.stage2[name][section]:
                config.stage2[name][section][field] = None
    config.stage2.otrw_global.weight_optimizer.learning_rate = 7.0
    others = [name for name in before if name not in ("cb", "otrw_global")]
    assert others and all(config.stage2[name].to_dict() == before[name] for name in others)
