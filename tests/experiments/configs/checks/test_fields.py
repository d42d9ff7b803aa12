"""A config is checked as a whole before anything is loaded or trained."""

import fnmatch

import pytest
from flax.traverse_util import flatten_dict

from experiments.configs import (
    cifar_lt,
    digits,
    features,
    image_folder,
    large_sets,
    modelnet10,
    photos,
    sst,
)
from experiments.configs.checks.fields import RULES, check_config, rule_of
from experiments.program.networks import make_model
from experiments.recipes import RECIPES, make_stages
from experiments.studies.rows import row_config
from experiments.studies.tables import TABLES
from tests.experiments.recipes.test_levers import COUNTS

CONFIGS = {
    "digits": digits.get_config(),
    "cifar": cifar_lt.get_config("family=meta"),
    "ldam": cifar_lt.get_config("dataset=cifar100,family=ldam"),
    "modelnet10": modelnet10.get_config(),
    "pointnet": modelnet10.get_config("backbone=pointnet"),
    "sst": sst.get_config("sst5"),
    "features": features.get_config(),
    "image_folder": image_folder.get_config(),
    "imagenet_lt": large_sets.get_config(),
    "inaturalist2018": large_sets.get_config("dataset=inaturalist2018"),
    "photos": photos.get_config(),
    "photos of places_lt": photos.get_config("dataset=places_lt"),
}
# Names, which are looked up where they are used, and paths.
NAMES = (
    *("recipe", "name", "folder", "_dir", "stage1_from", "encoder.weights"),
    *("data.lists", "encoder.network", "model.weights"),
    *("pooling", ".net", "net_input"),
)
ERM = ("cb", "continued", "continued_head", "crt", "lws", "disalign")


def fields_of(config):
    return flatten_dict(config.to_dict(), sep=".")


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_the_configs_are_in_range_and_every_field_has_one(config):
    check_config(config)
    for name, value in fields_of(config).items():
        # OTReweighting itself knows the words among its choices.
        named = name.endswith(NAMES) or (".choices." in name and isinstance(value, str))
        assert rule_of(name) or named, (
            f"{name} has no range in experiments.configs.checks.fields.RULES"
        )


@pytest.mark.parametrize("name", TABLES)
def test_every_row_of_a_table_is_in_range(name):
    table = TABLES[name]
    for row in table.rows.values():
        check_config(row_config(row, table.dataset, table.imbalance_factor, {}))


def test_every_rule_is_of_a_field():
    names = {name for config in CONFIGS.values() for name in fields_of(config)}
    first = {next((p for p in RULES if fnmatch.fnmatchcase(name, p)), None) for name in names}
    assert set(RULES) - first == set()


@pytest.mark.parametrize("lever", ["mixup", "sam", "smoothing"])
@pytest.mark.parametrize("recipe", [name for name, r in RECIPES.items() if r.second is not None])
def test_a_lever_of_a_second_stage_is_used_or_refused(recipe, lever):
    config = digits.get_config(f"recipe={recipe}")
    config.stage2[recipe].levers[lever] = 0.1
    model = make_model(config.model, 10, head=RECIPES[recipe].head)
    if recipe in ERM or (lever == "smoothing" and recipe.startswith("otrw_")):
        make_stages(config, model, COUNTS)
    else:
        with pytest.raises(ValueError, match=rf"stage2\.{recipe}\.levers\.{lever} goes with"):
            make_stages(config, model, COUNTS)
