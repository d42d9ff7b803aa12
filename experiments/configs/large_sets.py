"""ImageNet-LT, Places-LT, iNaturalist 2018 on features of a frozen ResNet: heads, re-weighting.

    --config=experiments/configs/large_sets.py:dataset=imagenet_lt,recipe=otrw_paper \\
        --config.data.folder=DIR --config.encoder.weights=STAGE1.pth

`data.folder` has the images and, unless `data.lists` is given, the published lists, as
docs/large_sets.md describes them. Images become features of the network of a stage-1 file, once;
they are kept in `data_dir`, in float16. The network is a linear head on the features.

The meta sets are those of the paper's appendix B: 10 images a class of the validation list, whose
others are held out; of iNaturalist 2 a class of the training list, which are trained on all the
same, since one class has no more. Its second stage (`otrw_paper`, `otrw_net`, `otrw_released`) has
the epochs, batches, rates and decay of section 6.1 and appendix B. Heads (`crt`, `lws` and all
others) are trained as those of Kang et al. (ICLR 2020): class-aware sampling where the recipe has
it, and a cosine. For a first stage on features alone nothing is published: it is as long as three
of these. Of an epoch on features nothing is augmented.
"""

from typing import Any, NamedTuple

from ml_collections import ConfigDict

from experiments.configs import features
from experiments.configs.common import (
    first_stage,
    head_stage,
    ot_stage,
    parse_arguments,
    second_stages,
    sgd,
)
from experiments.configs.kinds import LISTED
from otrw_jax.data.photos import IMAGENET_MEAN, IMAGENET_STD

IMAGENET = IMAGENET_MEAN, IMAGENET_STD
INATURALIST = (0.466, 0.471, 0.380), (0.195, 0.194, 0.192)
"""Mean and deviation of colours, as the stage-1 networks of each were trained."""


class Settings(NamedTuple):
    """What the data sets differ in.

    Attributes:
        network: of the stage-1 file.
        colours: mean and deviation.
        meta_from: the part of the meta set.
        meta_per_class: images of each class of it.
        head: epochs, batch, rate and decay of a head, and the epochs of LWS.
        ot: epochs, batch, rate and decay of the paper's second stage, and the rate of its weights.
        choices: of OT re-weighting, where the paper differs from its own text.
    """

    network: str
    colours: tuple[tuple[float, ...], tuple[float, ...]]
    meta_from: str
    meta_per_class: int
    head: tuple[int, int, float, float, int]
    ot: tuple[int, int, float, float, float]
    choices: dict[str, Any]


SETTINGS = {
    "imagenet_lt": Settings(
        *("resnet50", IMAGENET, "validation", 10),
        *((10, 512, 0.2, 5e-4, 5), (50, 128, 2e-5, 5e-4, 1e-2), {}),
    ),
    "places_lt": Settings(
        *("resnet152", IMAGENET, "validation", 10),
        *((10, 256, 0.1, 5e-4, 10), (50, 32, 1e-4, 5e-3, 1e-3), {}),
    ),
    "inaturalist2018": Settings(
        *("resnet50", INATURALIST, "within", 2),
        *((30, 512, 0.2, 1e-4, 5), (200, 64, 1e-4, 5e-3, 1e-3), {"cost": "feature"}),
    ),
}
"""By data set; heads by Kang et al.'s program, the second stage of OT by the paper."""


def get_config(arguments: str = "") -> ConfigDict:
    """The config; arguments: dataset, recipe, folder.

    Raises:
        ValueError: an argument is none of these, or the data set is none of the three.
    """
    given = parse_arguments(arguments, dataset="imagenet_lt", recipe="otrw_paper", folder="")
    if given.dataset not in SETTINGS:
        raise ValueError(f"dataset={given.dataset!r}; choose {', '.join(LISTED)}.")
    settings = SETTINGS[given.dataset]
    mean, deviation = settings.colours
    config = features.get_config(f"recipe={given.recipe},folder={given.folder}")
    config.data.update(
        {
            "name": given.dataset,
            # The folder with the published lists; empty for that of the images.
            "lists": "",
            # TFDS's folder, for what is found out about the images and for their features.
            "data_dir": "",
            # So many files may be left out that are missing, damaged or no images.
            "max_excluded": 0,
            "meta_from": settings.meta_from,
            "meta_per_class": settings.meta_per_class,
            # The published rates are for features as they are.
            "scaling": "none",
        }
    )
    config.encoder = ConfigDict(
        {
            "network": settings.network,
            # A stage-1 file, or weights of ImageNet, in torchvision's layout.
            "weights": "",
            # The shorter side is brought to the first; the middle square of the second is taken.
            "resize": 256,
            "side": 224,
            "mean": mean,
            "deviation": deviation,
        }
    )
    config.evaluate_every = 2
    epochs, batch, rate, decay, of_lws = settings.head
    head = batch, sgd(rate, weight_decay=decay, schedule="cosine")
    config.stage1 = first_stage(3 * epochs, *head)
    epochs_ot, batch_ot, rate_ot, decay_ot, rate_of_weights = settings.ot
    weights = sgd(rate_of_weights, momentum=0.0, weight_decay=0.0)
    paper = epochs_ot, batch_ot, sgd(rate_ot, weight_decay=decay_ot)
    config.stage2 = second_stages(
        2,
        # The inputs are features: no copies of them are kept beside.
        head_stage(epochs, *head, 0),
        {
            "otrw_paper": ot_stage(*paper, weights),
            "otrw_net": ot_stage(*paper, weights),
            "otrw_released": ot_stage(*paper, sgd(rate_of_weights, momentum=0.0)),
            "otrw_global": ot_stage(epochs, *head, weights),
            "otrw_global_sampling": ot_stage(epochs, *head, weights),
        },
    )
    config.stage2.otrw_released.choices.label_weight = None
    config.stage2.lws.epochs = of_lws
    for loss in ("ce", "focal", "ldam"):
        # Of 1,000 classes on 2,048 numbers full matrices take 17 GB, of iNaturalist's 137 GB.
        config.options[f"metasaug_{loss}"].covariance = "diagonal"
    for name in ("otrw_paper", "otrw_net"):
        # The last layer alone is trained, so that meta features stay what they are.
        config.stage2[name].choices.update(
            {"trainable": "head/.*", "batch_norm": False, "meta_features": "refresh"}
        )
        config.stage2[name].choices.update(settings.choices)
    return config
