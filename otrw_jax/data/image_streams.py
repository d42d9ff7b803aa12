"""Image files as stored inputs: decoded and brought to one square on the host, in threads."""

import contextlib
import io
import os
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Int, PyTree, UInt8
from PIL import ExifTags, Image

from otrw_jax.checks import check_number
from otrw_jax.data.builders.image_files import (
    CROPS,
    Crop,
    ImageError,
    read_square,
    without_warnings,
)
from otrw_jax.data.streams import Stream
from otrw_jax.extras import brought_by

with brought_by("stream", __name__):
    import simplejpeg


class ImageFiles:
    """Images of files by number, each as `read_square` reads it, JPEGs in less time."""

    def __init__(self, paths: Sequence[str | os.PathLike], side: int, crop: Crop = "center"):
        """Opens nothing yet.

        Args:
            paths: of the files.
            side: height and width of what is given of each.
            crop: of `read_square`.

        Raises:
            ValueError: the side is less than 1, or the crop is unknown.
        """
        check_number("ImageFiles", "side", side, least=1, whole=True)
        if crop not in CROPS:
            raise ValueError(f"crop is {crop!r}; it must be one of {', '.join(CROPS)}.")
        self._paths = [pathlib.Path(path) for path in paths]
        self._side, self._crop = side, crop

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, number: int) -> UInt8[np.ndarray, "s s 3"]:
        """An image.

        Raises:
            ImageError: as `read_image`, with what to do.
        """
        path = self._paths[number]
        try:
            return read_square(path, self._side, self._crop, decoded)
        except ImageError as error:
            raise ImageError(
                path,
                f"{error.fault}; restore it and run again: what has been saved is whole, and goes "
                "on with the same images alone.",
            ) from error


class ImageStream(Stream):
    """Images of files, batch by batch in any order: uint8 `[b side side 3]`.

    One that cannot be read, because it was damaged after the list was checked, ends the reading in
    an `ImageError` that names it; nothing stands in for it.

    Attributes:
        shape: of all of them together, `(n, side, side, 3)`.
        dtype: uint8.
    """

    def __init__(
        self,
        paths: Sequence[str | os.PathLike],
        side: int,
        crop: Crop = "center",
        threads: int = 16,
    ):
        """Opens nothing yet.

        Args:
            paths: as of `ImageFiles`, and the next two.
            side: height and width.
            crop: of `read_square`.
            threads: that read and decode; more than there are cores serve where files are far.

        Raises:
            ValueError: a number is less than 1, or the crop is unknown.
        """
        super().__init__(ImageFiles(paths, side, crop), threads=threads)
        self.shape, self.dtype = (len(self), side, side, 3), np.dtype(np.uint8)

    @contextlib.contextmanager
    def batches(self, ids: Int[np.ndarray, "n"], size: int) -> Iterator[Iterator[PyTree]]:
        """As of `Stream`; what Pillow warns of is held back meanwhile."""
        with without_warnings(), super().batches(ids, size) as read:
            yield read


def decoded(content: bytes) -> UInt8[np.ndarray, "h w 3"] | None:
    """The pixels of an upright JPEG in colour, by simplejpeg: Pillow's, bit for bit, in less time.

    Args:
        content: of a file.

    Returns:
        None where it is another file, or one that simplejpeg refuses: Pillow reads it, or says what
        is wrong.
    """
    try:
        header = Image.open(io.BytesIO(content), formats=("JPEG",))
        upright = header.getexif().get(ExifTags.Base.Orientation, 1) == 1
        if upright and header.mode == "RGB":
            return simplejpeg.decode_jpeg(content)
    except MemoryError:  # Says nothing of the file.
        raise
    except Exception:  # Each library raises what it likes.
        return None
    return None
