"""Training images by PyTorch's DataLoader and Pillow, which the library's stream is compared with.

Written as programs for ImageNet are, without torchvision, whose transforms call Pillow alike.
"""

import random
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from PIL import Image, ImageEnhance
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

ENHANCERS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)


class Squares(Dataset):
    """The largest square in the middle of each image, brought to one side; bytes `[s s 3]`."""

    def __init__(self, paths: Sequence[str], side: int):
        self._paths, self._side = paths, side

    def __len__(self) -> int:
        return len(self._paths)

    def square(self, number: int) -> Image.Image:
        """An image, decoded and resized."""
        image = Image.open(self._paths[number]).convert("RGB")
        least = min(image.size)
        left, top = ((length - least) // 2 for length in image.size)
        image = image.crop((left, top, left + least, top + least))
        return image.resize((self._side, self._side), Image.Resampling.BICUBIC)

    def __getitem__(self, number: int) -> Tensor:
        return torch.from_numpy(np.array(self.square(number)))


class Views(Squares):
    """Standardised crops of these squares, mirrored and of other colours; floats `[3 c c]`."""

    def __init__(self, paths: Sequence[str], side: int, crop: int, jitter: float, mean, std):
        super().__init__(paths, side)
        self._crop, self._jitter = crop, jitter
        self._mean, self._std = (torch.tensor(x).reshape(3, 1, 1) for x in (mean, std))

    def __getitem__(self, number: int) -> Tensor:
        image = self.square(number)
        left, top = (random.randint(0, self._side - self._crop) for _ in range(2))
        image = image.crop((left, top, left + self._crop, top + self._crop))
        if random.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        for enhancer in random.sample(ENHANCERS, len(ENHANCERS)):
            factor = random.uniform(1 - self._jitter, 1 + self._jitter)
            image = enhancer(image).enhance(factor)
        values = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
        return (values - self._mean) / self._std


def batches(dataset: Dataset, order: Sequence[int], size: int) -> Iterator[Tensor]:
    """Batches in an order, by one thread of this process, as each of a DataLoader's workers has it.

    Without workers, whose messages take processor time too.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield from DataLoader(dataset, size, sampler=list(order))
    finally:
        torch.set_num_threads(threads)
