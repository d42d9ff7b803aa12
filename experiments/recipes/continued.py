"""Recipes that go on with cross-entropy: what further epochs give by themselves.

A second stage is compared with them at equal budgets: the same first stage, and as many further
epochs of batches of the same size, by the config's optimiser of heads.
"""

from experiments.recipes.base import Context, Recipe


def _continued(c: Context):
    return [c.erm_stage(), c.erm_stage(c.second)]


head = Recipe(
    "cross-entropy continued for a second stage's epochs, head",
    _continued,
    second={},
    trains_first="cross-entropy",
)

whole_network = Recipe(
    "cross-entropy continued for a second stage's epochs, whole network",
    _continued,
    second={"trainable": ".*", "batch_norm": True, "feature_copies": 0},
    trains_first="cross-entropy",
)
