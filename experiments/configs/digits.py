"""Long-tailed handwritten digits: real images that need no download, for demo and tests.

--config=experiments/configs/digits.py:recipe=otrw_global,imbalance_factor=50
"""

from ml_collections import ConfigDict

from experiments.configs.common import (
    base,
    first_stage,
    head_stage,
    ot_stage,
    parse_arguments,
    second_stages,
    sgd,
)


def get_config(arguments: str = "") -> ConfigDict:
    """The config; arguments: recipe, imbalance_factor."""
    given = parse_arguments(arguments, recipe="otrw_global", imbalance_factor=50.0)
    config = base(given.recipe)
    config.data = ConfigDict(
        {
            "name": "digits",
            "data_dir": "",
            "imbalance_factor": given.imbalance_factor,
            "profile": "exponential",
            "meta_per_class": 5,
            "held_out_per_class": 5,
            "augment": False,
            "padding": "reflect",
        }
    )
    config.model = ConfigDict({"name": "mlp", "hidden": (128, 64), "tanh": False})
    config.stage1 = first_stage(60, 32, sgd(0.05))
    weights = sgd(0.1, momentum=0.0, weight_decay=0.0)
    raw_weights = sgd(0.01, momentum=0.0)
    released = sgd(1e-3, nesterov=True)
    # Digits are not augmented, so one copy of the features of a frozen backbone is all there is.
    config.stage2 = second_stages(
        10,
        head_stage(20, 16, sgd(0.01), 1),
        {
            "otrw_paper": ot_stage(20, 16, sgd(0.01), weights),
            "otrw_net": ot_stage(20, 16, sgd(0.01), weights),
            "otrw_released": ot_stage(20, 16, released, raw_weights),
            "otrw_global": ot_stage(20, 16, sgd(0.01), weights, 1),
            "otrw_global_sampling": ot_stage(20, 16, sgd(0.01), weights, 1),
        },
    )
    return config
