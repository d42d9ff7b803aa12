"""The recipe of one stage that trains a network of two branches."""

from experiments.recipes.base import Context, Recipe
from otrw_jax import losses
from otrw_jax.methods.bbn import bbn


def _bilateral(c: Context):
    def make(model, optimizer, axis_name):
        return bbn(
            model,
            optimizer,
            c.counts,
            c.total_steps(c.first),
            steps_per_epoch=c.steps(c.first),
            loss=c.smoothed(c.first, losses.cross_entropy),
            axis_name=axis_name,
        )

    return [c.stage(make)]


bilateral = Recipe(
    "BBN: two branches, from the data as they are to the rare classes",
    _bilateral,
    trains_first="bbn",
    branches=2,
)
