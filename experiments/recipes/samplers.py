"""Recipes of one stage of cross-entropy on examples drawn otherwise than in a random order."""

from experiments.recipes.base import Recipe
from otrw_jax.samplers import class_power, progressive, sampled


def _drawn(sampler):
    def stages(c):
        return [c.erm_stage(wrap=lambda method: sampled(method, sampler(c)))]

    return stages


class_balanced = Recipe(
    "cross-entropy, classes drawn alike",
    _drawn(lambda c: class_power(c.num_classes, 0.0)),
    trains_first="class-balanced sampling",
)

square_root = Recipe(
    "cross-entropy, classes drawn by the square root of their counts",
    _drawn(lambda c: class_power(c.num_classes, 0.5)),
    trains_first="square-root sampling",
)


def _progressive(c):
    # The last epoch is class-balanced whole, as in the authors' program: t / (T - 1).
    before_last = c.total_steps(c.first) - c.steps(c.first)
    return progressive(c.num_classes, max(before_last, 1))


progressively_balanced = Recipe(
    "cross-entropy, from random to class-balanced draws",
    _drawn(_progressive),
    trains_first="progressive sampling",
)
