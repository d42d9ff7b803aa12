"""Features of any encoder in files of your own: every head, re-weighting and control on them.

--config=experiments/configs/features.py:recipe=otrw_global --config.data.folder=DIR

`data.folder` is a folder or a file as docs/your_features.md describes it. The network is a linear
head on the features (`model.hidden=128,64` puts layers before it). The training part is taken as
it is, or by `imbalance_factor` as a long-tailed subset of it. The meta set is the meta part, else
drawn from the validation part, else split off the training part (`data.meta_from`); with
`data.meta_per_class=0` there is none, which serves what needs none, and a measure that is
`dynamic` (`stage2.NAME.choices.measure`, with `meta_features=refresh`).
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
    """The config; arguments: recipe, imbalance_factor (as it is where none is given), folder."""
    given = parse_arguments(arguments, recipe="otrw_global", imbalance_factor=float, folder="")
    config = base(given.recipe)
    config.data = ConfigDict(
        {
            "name": "features",
            # The folder or file; another one on another machine may hold the same.
            "folder": given.folder,
            # Largest over smallest class; None takes the training part as it is.
            "imbalance_factor": given.imbalance_factor,
            "profile": "exponential",
            # The part of the meta set: "first" is the first there is of meta, validation, train;
            # "within" is the training part, whose meta examples are trained on all the same.
            "meta_from": "first",
            "meta_per_class": 10,
            # Split off the training part, where there is no validation part.
            "held_out_per_class": 0,
            # "length": times one number, by which their mean squared length is one; or "none".
            "scaling": "length",
        }
    )
    config.model = ConfigDict({"name": "mlp", "hidden": (), "tanh": False})
    config.stage1 = first_stage(60, 100, sgd(1.0))
    head = sgd(0.2)
    weights = sgd(0.01, momentum=0.0, weight_decay=0.0)
    # A net moves by the square of its inputs' entries, and these are small at a length of one.
    net_weights = sgd(10.0, momentum=0.0, weight_decay=0.0)
    raw_weights = sgd(0.01, momentum=0.0)
    second = 20, 100, head
    # The choices of the presets do not depend on the number of classes, which is not known here,
    # but for the label weight of the authors' program, one over it.
    config.stage2 = second_stages(
        2,
        head_stage(*second, 1),
        {
            "otrw_paper": ot_stage(*second, weights),
            "otrw_net": ot_stage(*second, net_weights),
            "otrw_released": ot_stage(*second, raw_weights),
            "otrw_global": ot_stage(*second, weights, 1),
            "otrw_global_sampling": ot_stage(*second, weights, 1),
        },
    )
    config.stage2.otrw_released.choices.label_weight = None
    return config
