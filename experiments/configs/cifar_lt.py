"""Long-tailed CIFAR-10 and CIFAR-100 with ResNet-32, in the paper's settings where it gives them.

    --config=experiments/configs/cifar_lt.py:dataset=cifar10,imbalance_factor=100,recipe=otrw_paper

The families differ in more than the counts (see docs/method.md): `meta` is that of the paper, of
Meta-Weight-Net and of MetaSAug; `ldam` is that of LDAM, without a meta set.
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

# Augmented views of each image whose features are kept where the backbone is frozen.
COPIES = 5


def get_config(arguments: str = "") -> ConfigDict:
    """The config; arguments: dataset, imbalance_factor, family, recipe, seed, held_out."""
    given = parse_arguments(
        arguments,
        dataset="cifar10",
        imbalance_factor=100.0,
        family="meta",
        recipe="otrw_paper",
        seed=0,
        held_out=-1,
    )
    if given.dataset not in ("cifar10", "cifar100"):
        raise ValueError(f"dataset={given.dataset!r}; choose cifar10 or cifar100.")
    if given.family not in ("meta", "ldam"):
        raise ValueError(f"family={given.family!r}; choose meta or ldam.")
    meta_family = given.family == "meta"
    num_classes = 10 if given.dataset == "cifar10" else 100

    config = base(given.recipe)
    config.seed = config.subset_seed = given.seed
    config.data = ConfigDict(
        {
            "name": given.dataset,
            "data_dir": "",
            "imbalance_factor": given.imbalance_factor,
            "profile": "exponential",
            "meta_per_class": 10 if meta_family else 0,
            # A thousand images in all; it takes a few from the head class. 0 gives the exact
            # published counts, and no selection by held-out images.
            "held_out_per_class": 1000 // num_classes if given.held_out < 0 else given.held_out,
            "augment": True,
            "padding": "reflect" if meta_family else "zero",
        }
    )
    config.model = ConfigDict(
        {"name": "resnet_cifar", "depth": 32, "width": 16, "dtype": "float32"}
    )
    first = sgd(
        0.1,
        weight_decay=5e-4 if meta_family else 2e-4,
        milestones=(160, 180),
        warmup_epochs=0 if meta_family else 5,
    )
    config.stage1 = first_stage(200, 100 if meta_family else 128, first)
    weights = sgd(1e-3, momentum=0.0, weight_decay=0.0)
    raw_weights = sgd(0.01, momentum=0.0)
    released = sgd(2e-5, nesterov=True)
    config.stage2 = second_stages(
        head_stage(10, 128, sgd(0.01), COPIES),
        {
            "otrw_paper": ot_stage("paper", num_classes, 40, 16, sgd(2e-5), weights),
            "otrw_net": ot_stage("paper", num_classes, 40, 16, sgd(2e-5), weights),
            "otrw_released": ot_stage("released", num_classes, 90, 16, released, raw_weights),
            "otrw_global": ot_stage("global", num_classes, 10, 128, sgd(0.01), weights, COPIES),
            "otrw_global_sampling": ot_stage(
                "global_sampling", num_classes, 10, 128, sgd(0.01), weights, COPIES
            ),
        },
    )
    return config
