import numpy as np
import pytest
from PIL import Image

from otrw_jax.data.builders.image_files import (
    ImageError,
    checked,
    read_image,
    read_middle,
    read_square,
)
from tests.data.builders.image_files import cut_off, pixels, save


@pytest.mark.parametrize(
    "mode, kind",
    [
        ("RGB", "PNG"),
        ("L", "PNG"),
        ("1", "PNG"),
        ("P", "PNG"),
        ("P", "GIF"),
        ("CMYK", "TIFF"),
        ("RGB", "BMP"),
        ("RGB", "WEBP"),
    ],
)
def test_every_mode_becomes_rgb_whatever_the_name_ends_in(tmp_path, mode, kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    written = save(tmp_path / "picture.JPG", mode=mode, suffix=kind, **options)
    read = read_image(tmp_path / "picture.JPG")
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, written)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpegs_of_every_mode_are_read(tmp_path, mode):
    written = save(tmp_path / "picture", mode=mode, suffix="JPEG", quality=100)
    assert np.abs(read_image(tmp_path / "picture").astype(int) - written).mean() < 6


@pytest.mark.parametrize("of", ["open", "load"])
def test_a_full_memory_is_no_fault_of_the_file(tmp_path, monkeypatch, of):
    save(tmp_path / "picture.png")

    def full(*args, **options):
        raise MemoryError

    monkeypatch.setattr(f"PIL.Image.{of}" if of == "open" else "PIL.ImageFile.ImageFile.load", full)
    with pytest.raises(MemoryError):
        checked(tmp_path / "picture.png")


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_lies_on_white(tmp_path, mode):
    image = Image.new("RGBA", (4, 2), (0, 0, 0, 0))
    image.putpixel((0, 0), (0, 0, 0, 255))
    if mode == "P":
        image = image.convert("LA").convert("PA").convert("P")
        image.putpalette([0, 0, 0, 9, 9, 9])
        image.putdata([0, *[1] * 7])
        image.save(tmp_path / "a.png", transparency=1)
    else:
        image.convert(mode).save(tmp_path / "a.png")
    read = read_image(tmp_path / "a.png")
    assert read[0, 0].tolist() == [0, 0, 0]
    assert (read.reshape(-1, 3)[1:] == 255).all()


def test_grey_of_16_bits_keeps_the_upper_8(tmp_path):
    values = np.array([[0, 255, 256], [40_000, 65_279, 65_535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    read = read_image(tmp_path / "a.png")
    np.testing.assert_array_equal(read[..., 0], values >> 8)


@pytest.mark.parametrize("orientation, turned", [(1, 0), (3, 2), (6, -1), (8, 1)])
def test_a_picture_is_upright_as_its_exif_orientation_says(tmp_path, orientation, turned):
    exif = Image.Exif()
    exif[0x0112] = orientation
    written = save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.rot90(written, turned))


def test_of_several_pictures_the_first_counts(tmp_path):
    pictures = [Image.fromarray(pixels(seed)).convert("P") for seed in (1, 2)]
    pictures[0].save(tmp_path / "a.gif", save_all=True, append_images=pictures[1:])
    np.testing.assert_array_equal(read_image(tmp_path / "a.gif"), pictures[0].convert("RGB"))


def _missing(path):
    path.unlink()


def _text(path):
    path.write_text("no picture")


def _document(path):
    Image.fromarray(pixels()).save(path, "PDF")


def _floats(path):
    Image.fromarray(np.ones((2, 2), np.float32)).save(path, "TIFF")


def _folder(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    "spoil, why",
    [
        (_missing, "missing"),
        (lambda path: path.write_bytes(b""), "empty"),
        (_text, "no image"),
        (_document, "no image"),
        (cut_off, "damaged or cut off"),
        (_floats, "of pixels of 32 bits"),
        (_folder, "not to be opened: is a directory"),
    ],
)
def test_what_cannot_be_read_says_why(tmp_path, spoil, why):
    path = tmp_path / "a.jpg"
    save(path, suffix="JPEG")
    spoil(path)
    for read in (read_image, checked):
        with pytest.raises(ImageError) as raised:
            read(path)
        assert raised.value.fault == why and str(raised.value) == f"{path} is {why}."


def test_a_picture_of_too_many_pixels_is_not_decoded(tmp_path, monkeypatch):
    save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(ImageError, match=r"a.png is of too many pixels\.$"):
        read_image(tmp_path / "a.png")


def test_a_square_is_the_middle_or_the_whole(tmp_path):
    written = save(tmp_path / "a.png")
    middle = Image.fromarray(written[:, 2:10])
    whole = Image.fromarray(written)
    for crop, expected in (("center", middle), ("none", whole)):
        found = read_square(tmp_path / "a.png", 5, crop)
        np.testing.assert_array_equal(found, expected.resize((5, 5), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(read_square(tmp_path / "a.png", 8), middle)
    with pytest.raises(ValueError, match=r"crop is 'middle'; it must be one of center, none."):
        read_square(tmp_path / "a.png", 5, "middle")


@pytest.mark.parametrize(
    "width, height, size, box",
    [
        # Sizes and corners by torchvision's Resize and CenterCrop, whose halves go to the even.
        (12, 8, (15, 10), (4, 2, 10, 8)),
        (8, 12, (10, 15), (2, 4, 8, 10)),
        (11, 8, (13, 10), (4, 2, 10, 8)),
        (8, 8, (10, 10), (2, 2, 8, 8)),
    ],
)
def test_the_middle_is_that_of_torchvision(tmp_path, width, height, size, box):
    image = Image.fromarray(pixels(3, height, width))
    image.save(tmp_path / "a.png")
    expected = image.resize(size, Image.Resampling.BILINEAR).crop(box)
    np.testing.assert_array_equal(read_middle(tmp_path / "a.png", 10, 6), expected)


def test_a_middle_that_is_larger_than_the_image_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"side is 6, and resize is 5; it must be as large"):
        read_middle(tmp_path / "a.png", 5, 6)


def test_the_digest_is_of_the_file(tmp_path):
    save(tmp_path / "a.png", 1)
    (tmp_path / "b").write_bytes((tmp_path / "a.png").read_bytes())
    save(tmp_path / "c.png", 2)
    one, copy, other = (checked(tmp_path / name) for name in ("a.png", "b", "c.png"))
    assert one == copy != other
