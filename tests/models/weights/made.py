"""Tensors of networks in the names and shapes of PyTorch's programs, with numbers of a seed."""

import numpy as np

RESNETS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
WIDTH, CLASSES, SIDE = 4, 3, 64
EFFICIENTNET = [
    *[(3, 32, 16, 1)],
    *[(3, 16, 24, 6), (3, 24, 24, 6), (5, 24, 40, 6), (5, 40, 40, 6)],
    *[(3, 40, 80, 6), (3, 80, 80, 6), (3, 80, 80, 6)],
    *[(5, 80, 112, 6), (5, 112, 112, 6), (5, 112, 112, 6)],
    *[(5, 112, 192, 6), (5, 192, 192, 6), (5, 192, 192, 6), (5, 192, 192, 6)],
    *[(3, 192, 320, 6)],
]
"""Side of the filters, channels in and out, and expansion of each block."""


class Made(dict):
    """Tensors by name, as they are added."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)

    def conv(self, name, channels_out, channels_in, side):
        shape = (channels_out, channels_in, side, side)
        deviation = np.sqrt(2 / (channels_in * side * side))
        self[f"{name}.weight"] = self.normal(shape) * np.float32(deviation)

    def norm(self, name, channels, scale=1.0):
        self[f"{name}.weight"] = self.uniform(channels) * np.float32(scale)
        self[f"{name}.bias"] = self.normal(channels) * np.float32(0.1)
        self[f"{name}.running_mean"] = self.normal(channels) * np.float32(0.1)
        self[f"{name}.running_var"] = self.uniform(channels)
        self[f"{name}.num_batches_tracked"] = np.asarray(5)

    def head(self, name, classes, width):
        self[f"{name}.weight"] = self.normal((classes, width)) * np.float32(width**-0.5)
        self[f"{name}.bias"] = self.normal(classes)

    def normal(self, shape):
        return self.rng.normal(size=shape).astype(np.float32)

    def uniform(self, shape):
        return self.rng.uniform(0.5, 1.0, shape).astype(np.float32)


def resnet(depth):
    """A narrow ResNet as torchvision and timm name its tensors."""
    made = Made(depth)
    made.conv("conv1", WIDTH, 3, 7)
    made.norm("bn1", WIDTH)
    before = WIDTH
    for stage, blocks in enumerate(RESNETS[depth]):
        inner = WIDTH * 2**stage
        for block in range(blocks):
            name = f"layer{stage + 1}.{block}"
            for number, out, into, side in (
                (1, inner, before, 1),
                (2, inner, inner, 3),
                (3, 4 * inner, inner, 1),
            ):
                made.conv(f"{name}.conv{number}", out, into, side)
                made.norm(f"{name}.bn{number}", out, 0.2 if number == 3 else 1.0)
            if block == 0:
                made.conv(f"{name}.downsample.0", 4 * inner, before, 1)
                made.norm(f"{name}.downsample.1", 4 * inner)
            before = 4 * inner
    made.head("fc", CLASSES, before)
    return dict(made)


def efficientnet():
    """EfficientNet-Lite0 as EfficientNet-PyTorch names its tensors, with few classes."""
    made = Made(0)
    made.conv("_conv_stem", 32, 3, 3)
    made.norm("_bn0", 32)
    for number, (side, into, out, expansion) in enumerate(EFFICIENTNET):
        name, inner = f"_blocks.{number}", expansion * into
        if expansion > 1:
            made.conv(f"{name}._expand_conv", inner, into, 1)
            made.norm(f"{name}._bn0", inner)
        made.conv(f"{name}._depthwise_conv", inner, 1, side)
        made.norm(f"{name}._bn1", inner)
        made.conv(f"{name}._project_conv", out, inner, 1)
        made.norm(f"{name}._bn2", out)
    made.conv("_conv_head", 1280, 320, 1)
    made.norm("_bn1", 1280)
    made.head("_fc", CLASSES, 1280)
    return dict(made)


def images(count=2, side=SIDE):
    """Pixels from 0 to 255, the same each time."""
    return np.random.default_rng(7).integers(0, 256, (count, side, side, 3)).astype(np.uint8)
