"""Long-tailed CIFAR on features of EfficientNet-Lite0: every head, re-weighting and control.

    --config=experiments/configs/cifar_features.py:dataset=cifar10,imbalance_factor=100,recipe=cb

Images are enlarged to 128² and become features of EfficientNet-Lite0, trained on ImageNet, once;
they are kept in `data_dir`. The subsets, meta sets and held-out parts are those of
experiments/configs/cifar_lt.py and its family `meta`. The network is a linear head on the features;
all else is as of features in files (experiments/configs/features.py), but for fewer epochs, no
weight decay, a cosine in the first stage, and the rates of two second stages.

Rates and decay are chosen by held-out errors at a factor of 100 and seed 0, on both data sets. In
the first stage (`ce`) decays of 5e-4 and 5e-5 leave the head far from fitting and are worse;
without decay 3 is better than 1, and 10, tried on CIFAR-100 alone, better still. In the second
stages a decay of 5e-4 takes back what the first has fitted (`continued_head` is worse on both
sets); without it the other recipes that train are better or as good on CIFAR-100, and within a
point on CIFAR-10, but for `otrw_released`, worse there at 0.2. Of 0.02, 0.05 and 0.2 it is best at
0.05 in the mean of both sets. Heads keep 0.2, the best of 0.02, 0.2 and 1 for `cb` and
`otrw_global` on CIFAR-10 after a first stage with decay.

The net of `otrw_net` does not move at a rate of 0.01: entries of features of length one are about
0.03 here, its scores are products of two linear maps of these, and an example's weight stays within
a thousandth of every other's. Of 1, 10, 30, 100, 300 and 1000 its rate is the best on CIFAR-10, and
as good as 10 and 300 on CIFAR-100; from 1000 on it is too fast there.
"""

from ml_collections import ConfigDict

from experiments.configs import features
from experiments.configs.cifar_lt import DATASETS
from experiments.configs.common import first_stage, parse_arguments, sgd


def get_config(arguments: str = "") -> ConfigDict:
    """The config; arguments: dataset, imbalance_factor, recipe.

    Raises:
        ValueError: an argument is none of these, or the data set is none of CIFAR.
    """
    given = parse_arguments(
        arguments, dataset="cifar10", imbalance_factor=100.0, recipe="otrw_global"
    )
    if given.dataset not in DATASETS:
        raise ValueError(f"dataset={given.dataset!r}; choose {' or '.join(DATASETS)}.")
    config = features.get_config(f"recipe={given.recipe},imbalance_factor={given.imbalance_factor}")
    config.data.name = f"{given.dataset}_features"
    config.data.held_out_per_class = 1000 // (10 if given.dataset == "cifar10" else 100)
    # Of the user's files alone.
    del config.data.folder, config.data.meta_from
    # TFDS's folder, of the images and their features.
    config.data.data_dir = ""
    config.encoder = ConfigDict(
        {
            # A file of weights; empty for those that the extra `efficientnet` installs.
            "weights": "",
            # Height and width that images are brought to; the weights were trained at 224.
            "side": 128,
        }
    )
    config.evaluate_every = 2
    config.stage1 = first_stage(30, 100, sgd(3.0, weight_decay=0.0, schedule="cosine"))
    for section in config.stage2.values():
        if section.epochs > 1:  # The others train nothing.
            section.optimizer.weight_decay = 0.0
        section.epochs = 10
    config.stage2.otrw_released.optimizer.learning_rate = 0.05
    config.stage2.otrw_released.choices.virtual_learning_rate = 0.05
    config.stage2.otrw_net.weight_optimizer.learning_rate = 100.0
    return config
