"""Whole networks on images that stay on the disk: those of a folder, or of the three large sets.

    --config=experiments/configs/photos.py:dataset=imagenet_lt,recipe=otrw_paper \\
        --config.data.folder=DIR

Images are read while they are trained on (`pip install "otrw_jax[stream]"`): their middle square is
brought to `data.stored`² on the host; crops of `data.side`² of it, mirrored and of other colours,
are what a ResNet is given. Folder and lists are as those of image_folder.py and large_sets.py,
which train heads on features of the same images, in a fraction of the time. A kill loses
`save_every` steps at the most.

The network begins at random, or with `model.weights` of torchvision's layout, .pth or .safetensors:
its last layer too, where the file has as many classes. Second stages are those of large_sets.py.
That of OT re-weighting trains the last layer, as the paper's text has it on all three sets;
`stage2.otrw_paper.choices.trainable=.*` and `batch_norm=True` train the whole.

First stages are those of the paper's section 6.1 and appendix B, whose sentence on batches and
weight decay is read as of both stages. What it does not say is filled in as is usual: 0.1 for the
first rate on ImageNet-LT; on Places-LT and iNaturalist 2018 three times the epochs between two
decays. The program by which the published stage-1 files of ImageNet-LT were trained (Kang et al.,
ICLR 2020) differs from the text: epochs=90, batch_size=512, optimizer.learning_rate=0.2,
optimizer.schedule=cosine and optimizer.milestones=() of `stage1`. A folder of your own has these,
at a batch and a rate of a fourth.
"""

from typing import Any, NamedTuple

from ml_collections import ConfigDict

from experiments.configs import image_folder, large_sets
from experiments.configs.common import first_stage, parse_arguments, sgd
from experiments.configs.kinds import IMAGE_FOLDERS, LISTED


class Settings(NamedTuple):
    """What the data sets differ in, beside what `large_sets.SETTINGS` has of them.

    Attributes:
        depth: of the ResNet.
        jitter: strength of the change of colours.
        first: epochs, batch and rate of the first stage.
        schedule: what else its optimiser (`sgd`) has.
    """

    depth: int
    jitter: float
    first: tuple[int, int, float]
    schedule: dict[str, Any]


SETTINGS = {
    "image_folder": Settings(50, 0.4, (90, 128, 0.05), {"schedule": "cosine"}),
    "imagenet_lt": Settings(50, 0.4, (200, 128, 0.1), {"milestones": (60, 80), "decay": 0.1}),
    "places_lt": Settings(
        *(152, 0.4, (30, 32, 0.01)),
        {"milestones": (10, 20), "decay": 0.1, "weight_decay": 5e-3},
    ),
    "inaturalist2018": Settings(
        *(50, 0.0, (60, 64, 0.01)),
        {"milestones": (20, 40), "decay": 0.1, "weight_decay": 5e-3},
    ),
}
"""By data set; the first by Kang et al.'s program, the others by the paper."""


def get_config(arguments: str = "") -> ConfigDict:
    """The config; arguments: dataset, recipe, folder.

    Raises:
        ValueError: an argument is none of these, or the data set none of the four.
    """
    given = parse_arguments(arguments, dataset="image_folder", recipe="otrw_paper", folder="")
    if given.dataset not in SETTINGS:
        raise ValueError(f"dataset={given.dataset!r}; choose {', '.join(IMAGE_FOLDERS)}.")
    settings, listed = SETTINGS[given.dataset], given.dataset in LISTED
    # Second stages, meta sets and lists are those of the same images as features.
    name = given.dataset if listed else "imagenet_lt"
    own = f"recipe={given.recipe},folder={given.folder}"
    config = large_sets.get_config(f"dataset={name},{own}")
    if not listed:
        config.data = image_folder.get_config(own).data
    colours = {"mean": config.encoder.mean, "deviation": config.encoder.deviation}
    del config.encoder
    del config.data.scaling
    config.data.update(
        {
            # Height and width that images are brought to on the host, and of the crops of these.
            # That a config has the first is what says that its images stay on the disk.
            "stored": 256,
            "side": 224,
            # Of brightness, contrast and saturation, from 0 for none to 1.
            "jitter": settings.jitter,
            **colours,
            # That read and decode; more than there are cores serve where files are far.
            "threads": 16,
        }
    )
    config.model = ConfigDict(
        {
            "name": "resnet_imagenet",
            "depth": settings.depth,
            "width": 64,
            # Of the activations; "bfloat16" halves their memory.
            "dtype": "float32",
            # A file that the network begins with; empty for random numbers.
            "weights": "",
        }
    )
    epochs, batch, rate = settings.first
    config.stage1 = first_stage(epochs, batch, sgd(rate, **settings.schedule))
    config.evaluate_every = 1
    # Steps between two saves of what is done of an epoch.
    config.save_every = 500
    for section in config.stage2.values():
        section.feature_copies = 0
    return config
