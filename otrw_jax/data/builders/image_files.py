"""Image files of any kind, read alike: upright, in colour, 8 bits, or with the reason why not."""

import contextlib
import hashlib
import io
import os
import pathlib
import warnings
from collections.abc import Callable, Iterator
from typing import Literal, get_args

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

Crop = Literal["center", "none"]
CROPS: tuple[Crop, ...] = get_args(Crop)
Decode = Callable[[bytes], UInt8[np.ndarray, "h w 3"] | None]
"""From a file's content to its pixels, upright and in colour, or None where Pillow decodes it."""

Image.init()
_READ = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")
FORMATS = tuple(name for name in _READ if name in Image.OPEN)


class ImageError(ValueError):
    """A file that is no image which can be read.

    Attributes:
        fault: what it is, in a few words.
    """

    def __init__(self, path: str | os.PathLike, fault: str):
        super().__init__(f"{path} is {fault}")
        self.fault = fault.removesuffix(".")


def read_image(path: str | os.PathLike) -> UInt8[np.ndarray, "h w 3"]:
    """Pixels of an image file, upright as its EXIF orientation says.

    What a file is decides its content, whatever its name ends in. Grey, palette and CMYK images
    become RGB; grey ones of 16 bits keep the upper 8. What is transparent lies on white. Of
    several pictures in a file the first counts.

    Raises:
        ImageError: it is missing, empty, no image, damaged or cut off, or of pixels of 32 bits.
    """
    return np.asarray(_decoded(path, _content(path)))


def read_square(
    path: str | os.PathLike,
    side: int,
    crop: Crop = "center",
    decode: Decode | None = None,
) -> UInt8[np.ndarray, "s s 3"]:
    """An image of one height and width, by Pillow's BICUBIC filter, which widens where it shrinks.

    Args:
        path: as for `read_image`.
        side: height and width.
        crop: "center" takes the largest square in the middle, "none" the whole image, whose aspect
            ratio is then lost.
        decode: of what it decodes, in place of Pillow.

    Raises:
        ImageError: as `read_image`.
        ValueError: the crop is unknown.
    """
    if crop not in CROPS:
        raise ValueError(f"crop is {crop!r}; it must be one of {', '.join(CROPS)}.")
    content = _content(path)
    pixels = decode(content) if decode is not None else None
    if pixels is None:
        image = _decoded(path, content)
        image = image.crop(_middle(*image.size)) if crop == "center" else image
    else:
        if crop == "center":  # What is cut off is not copied.
            left, top, right, bottom = _middle(pixels.shape[1], pixels.shape[0])
            pixels = pixels[top:bottom, left:right]
        image = Image.fromarray(pixels)
    return np.asarray(image.resize((side, side), Image.Resampling.BICUBIC))


def _middle(width: int, height: int) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the largest square in the middle."""
    least = min(width, height)
    left, top = (width - least) // 2, (height - least) // 2
    return left, top, left + least, top + least


def read_middle(path: str | os.PathLike, resize: int, side: int) -> UInt8[np.ndarray, "s s 3"]:
    """The middle of an image whose shorter side is brought to a length, as torchvision has it.

    The longer side keeps the ratio, rounded down; the filter is Pillow's BILINEAR, which widens
    where it shrinks; of the rest on both sides half is cut off, rounded to even. So are the
    published networks of ImageNet-LT, Places-LT and iNaturalist 2018 tested: 256, then 224.

    Args:
        path: as for `read_image`.
        resize: the shorter side.
        side: height and width of what is taken, at most `resize`.

    Raises:
        ImageError: as `read_image`.
        ValueError: the side is larger.
    """
    if side > resize:
        raise ValueError(f"side is {side}, and resize is {resize}; it must be as large or larger.")
    image = _decoded(path, _content(path))
    short, long = min(image.size), max(image.size)
    longer = int(resize * long / short)
    size = (resize, longer) if image.width <= image.height else (longer, resize)
    image = image.resize(size, Image.Resampling.BILINEAR)
    left, top = (round((length - side) / 2) for length in size)
    return np.asarray(image.crop((left, top, left + side, top + side)))


def checked(path: str | os.PathLike) -> str:
    """The SHA-256 of a file that `read_image` can read, which decodes the whole of it.

    Raises:
        ImageError: as `read_image`.
    """
    content = _content(path)
    _decoded(path, content)
    return hashlib.sha256(content).hexdigest()


@contextlib.contextmanager
def without_warnings() -> Iterator[None]:
    """Holds back what Pillow warns of, for all threads: each file has its outcome."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")
        yield


def _content(path: str | os.PathLike) -> bytes:
    try:
        content = pathlib.Path(path).read_bytes()
    except FileNotFoundError as error:
        raise ImageError(path, "missing.") from error
    except OSError as error:
        raise ImageError(
            path, f"not to be opened: {(error.strerror or str(error)).lower()}."
        ) from error
    if not content:
        raise ImageError(path, "empty.")
    return content


def _decoded(path: str | os.PathLike, content: bytes) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise ImageError(path, "of too many pixels.") from error
    except MemoryError:  # Says nothing of the file.
        raise
    except Exception as error:  # Each format raises what it likes.
        raise ImageError(path, "no image.") from error
    try:
        return _in_colour(path, ImageOps.exif_transpose(image))
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # As above.
        raise ImageError(path, "damaged or cut off.") from error


def _in_colour(path: str | os.PathLike, image: Image.Image) -> Image.Image:
    image.load()
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ImageError(path, "of pixels of 32 bits.")
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")
