"""Images of files: those that `read_square` reads, bit for bit, and what is said of others."""

import numpy as np
import pytest
from PIL import ExifTags, Image

from otrw_jax.data.builders.image_files import ImageError, read_image, read_square
from otrw_jax.data.image_streams import ImageFiles, ImageStream, decoded
from tests.data.builders.image_files import cut_off, pixels, save


def rotated(path, orientation):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    save(path, 3, suffix="JPEG", exif=exif)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A file of every kind."""
    root = tmp_path_factory.mktemp("images")
    large = Image.fromarray(np.asarray(Image.fromarray(pixels(1)).resize((97, 61))))
    for name, options in {
        "plain": {},
        "fine": {"quality": 95, "subsampling": 0},
        "halved": {"subsampling": 1},
        "coarse": {"quality": 20},
        "progressive": {"progressive": True},
    }.items():
        large.save(root / f"{name}.jpg", "JPEG", **options)
    save(root / "grey.jpg", 2, "L", "JPEG")
    save(root / "cmyk.jpg", 2, "CMYK", "JPEG")
    save(root / "png.jpg", 2)
    save(root / "palette.gif", 2, "P", "GIF")
    rotated(root / "rotated.jpg", 6)
    rotated(root / "upright.jpg", 1)
    return sorted(root.iterdir())


def test_pixels_are_pillows_bit_for_bit(files):
    for path in files:
        found = decoded(path.read_bytes())
        if found is not None:
            np.testing.assert_array_equal(found, read_image(path), path.name)


def test_upright_jpegs_in_colour_are_decoded_by_simplejpeg(files):
    slow = [path.name for path in files if decoded(path.read_bytes()) is None]
    assert slow == ["cmyk.jpg", "grey.jpg", "palette.gif", "png.jpg", "rotated.jpg"]


@pytest.mark.parametrize("crop", ["center", "none"])
def test_a_stream_gives_the_squares_of_the_ids(files, crop):
    ids = np.random.default_rng(0).permutation(len(files))
    stream = ImageStream(files, 8, crop, threads=3)
    with stream.batches(ids, 4) as read:
        found = np.concatenate(list(read))
    assert found.dtype == stream.dtype == np.uint8
    assert found.shape == stream.shape == (len(files), 8, 8, 3)
    wanted = np.stack([read_square(files[number], 8, crop) for number in ids])
    np.testing.assert_array_equal(found, wanted)


def damaged(path, content):
    if content is None:
        path.unlink()
    elif content == "cut off":
        cut_off(path)
    else:
        path.write_bytes(content)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("cut off", "damaged or cut off"),
        (None, "missing"),
        (b"", "empty"),
        (b"no image at all", "no image"),
    ],
)
def test_a_file_that_was_damaged_since_ends_the_reading_by_its_name(content, fault, tmp_path):
    for number in range(6):
        save(tmp_path / f"{number}.jpg", number, suffix="JPEG")
    paths = sorted(tmp_path.iterdir())
    damaged(paths[4], content)
    with ImageStream(paths, 8, threads=2).batches(np.arange(6), 2) as read:
        assert [len(next(read)), len(next(read))] == [2, 2]
        with pytest.raises(ImageError, match="4") as told:
            next(read)
    assert str(told.value) == (
        f"{paths[4]} is {fault}; restore it and run again: what has been saved is whole, and goes "
        "on with the same images alone."
    )


def test_bytes_after_the_end_do_not_matter(tmp_path):
    path = tmp_path / "more.jpg"
    save(path, 5, suffix="JPEG")
    path.write_bytes(path.read_bytes() + b"more")
    (found,) = ImageFiles([path], 8)
    np.testing.assert_array_equal(found, read_square(path, 8))


def test_what_does_not_fit_is_told():
    with pytest.raises(ValueError, match="crop is 'left'; it must be one of center, none"):
        ImageFiles([], 8, "left")
    with pytest.raises(ValueError, match="side is 0"):
        ImageStream([], 0)
    assert len(ImageStream(["a", "b"], 8)) == 2
