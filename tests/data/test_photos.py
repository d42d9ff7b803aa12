import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance

from otrw_jax.data.photos import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    blended,
    photo_preprocessing,
    random_colours,
    random_crops,
)
from tests.data.builders.image_files import pixels

ENHANCERS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
colours_in_jit = jax.jit(functools.partial(random_colours, strength=0.4))


def keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def photos(count=4, height=10, width=9):
    return np.stack([pixels(seed, height, width) for seed in range(count)])


@pytest.mark.parametrize("kind", [0, 1, 2])
@pytest.mark.parametrize("factor", [0.0, 0.7, 1.0, 1.4])
def test_colours_are_pillows(kind, factor):
    for image in photos():
        wanted = ENHANCERS[kind](Image.fromarray(image)).enhance(factor)
        found = blended(jnp.asarray(image, jnp.float32), kind, factor)
        # Pillow cuts off to whole numbers, of the greys too.
        np.testing.assert_allclose(found, np.asarray(wanted), atol=1.6)


def test_factors_and_their_order_are_drawn_for_each_image():
    same = np.repeat(photos(1), 200, axis=0).astype(np.float32)
    out = np.asarray(colours_in_jit(keys(200), same))
    assert len({one.tobytes() for one in out}) == 200
    assert out.min() >= 0 and out.max() <= 255
    grey = jnp.full((200, 2, 2, 3), 100.0)  # Contrast and saturation leave a plain grey as it is.
    factors = np.asarray(colours_in_jit(keys(200), grey))[:, 0, 0, 0] / 100
    assert 0.6 <= factors.min() < 0.62 and 1.38 < factors.max() <= 1.4
    assert factors.mean() == pytest.approx(1, abs=0.04)
    alike = jnp.asarray(same)
    np.testing.assert_array_equal(random_colours(keys(200), alike, 0.0), np.clip(same, 0, 255))


def test_colours_change_by_three_factors_in_any_order():
    image = jnp.asarray(photos(1)[0], jnp.float32) / 4 + 90  # Nothing is cut off.
    out = np.asarray(colours_in_jit(keys(64), jnp.stack([image] * 64)))
    orders = list(itertools.permutations(range(3)))
    found = []
    for one, key in zip(out, keys(64), strict=True):
        factors = jax.random.uniform(jax.random.split(key)[1], (3,), minval=0.6, maxval=1.4)
        wanted = [
            functools.reduce(lambda x, at: blended(x, order[at], factors[at]), range(3), image)
            for order in orders
        ]
        off = [np.abs(one - np.asarray(x)).max() for x in wanted]
        assert min(off) < 1e-3
        found.append(int(np.argmin(off)))
    assert set(found) == set(range(6))


def test_crops_are_anywhere_and_half_are_mirrored():
    image = photos(1)[0]
    out = np.asarray(random_crops(keys(800), jnp.asarray(np.stack([image] * 800)), 8))
    crops = [
        crop.tobytes()
        for top in range(3)
        for left in range(2)
        for part in [image[top : top + 8, left : left + 8]]
        for crop in (part, part[:, ::-1])
    ]
    frequency = np.bincount([crops.index(one.tobytes()) for one in out], minlength=12)
    assert len(frequency) == 12
    assert frequency.min() > 35 and frequency.max() < 105  # 67 are expected.


def test_evaluation_takes_the_middle_and_training_without_jitter_a_crop():
    images = photos()
    way = photo_preprocessing(6, jitter=0.0)
    wanted = (images[:, 2:8, 1:7] / 255 - IMAGENET_MEAN) / IMAGENET_STD
    np.testing.assert_allclose(way.evaluate(jnp.asarray(images)), wanted, rtol=1e-4, atol=1e-5)
    whole = photo_preprocessing(9, jitter=0.0)
    out = whole.train(keys(4), jnp.asarray(images[:, :9]))
    plain = np.asarray(whole.evaluate(jnp.asarray(images[:, :9])))
    for one, image in zip(np.asarray(out), plain, strict=True):
        assert np.array_equal(one, image) or np.array_equal(one, image[:, ::-1])
    assert photo_preprocessing(6) is photo_preprocessing(6)


def test_an_image_comes_out_alike_in_any_batch():
    train = jax.jit(photo_preprocessing(6).train)
    images = jnp.asarray(photos(8))
    out = train(keys(8), images)
    np.testing.assert_allclose(out[2:5], train(keys(8)[2:5], images[2:5]), atol=1e-5)


def test_photos_that_do_not_fit_are_told():
    images = jnp.asarray(photos())
    with pytest.raises(ValueError, match="stored images are 10×9, and crops of 10 are wanted"):
        photo_preprocessing(10).evaluate(images)
    with pytest.raises(ValueError, match="photos: images are float32; give uint8"):
        photo_preprocessing(6).train(keys(4), images.astype(jnp.float32))
    with pytest.raises(ValueError, match="images has shape"):
        photo_preprocessing(6).evaluate(images[..., :1])
    with pytest.raises(ValueError, match=r"jitter is 1\.5"):
        photo_preprocessing(6, jitter=1.5)
