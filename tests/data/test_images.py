import jax
import jax.numpy as jnp
import numpy as np
import pytest

from otrw_jax.data.images import preprocessing, random_crop_flip, standardise

NUMPY_MODE = {"reflect": {"mode": "reflect"}, "zero": {"mode": "constant"}}


crop_in_jit = jax.jit(random_crop_flip, static_argnames=("padding", "mode", "flip"))


def _keys(seed, batch):
    return jax.random.split(jax.random.key(seed), batch)


def _images(batch, height=6, width=5, channels=3, dtype=np.uint8, seed=0):
    shape = (batch, height, width, channels)
    return np.random.default_rng(seed).integers(1, 256, shape).astype(dtype)


def _all_crops(image, padding, mode, flip):
    """Every image that `random_crop_flip` may make of one, by np.pad and slices."""
    height, width, _ = image.shape
    padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)), **NUMPY_MODE[mode])
    crops = [
        padded[top : top + height, left : left + width]
        for top in range(2 * padding + 1)
        for left in range(2 * padding + 1)
    ]
    return crops + [crop[:, ::-1] for crop in crops] if flip else crops


@pytest.mark.parametrize(
    ("mode", "padding", "flip", "dtype"),
    [("reflect", 4, True, np.uint8), ("zero", 4, True, np.float32), ("zero", 7, False, np.uint8)],
)
def test_every_output_is_a_crop_of_its_own_image(mode, padding, flip, dtype):
    images = _images(16, dtype=dtype)
    out = crop_in_jit(_keys(1, 16), images, padding=padding, mode=mode, flip=flip)
    assert out.dtype == dtype
    for image, result in zip(images, np.asarray(out), strict=True):
        crops = _all_crops(image, padding, mode, flip)
        assert any(np.array_equal(result, crop) for crop in crops)


@pytest.mark.parametrize("mode", ["reflect", "zero"])
def test_every_crop_and_flip_occurs_about_equally_often(mode):
    image = _images(1)[0]
    copies = np.broadcast_to(image, (1800, *image.shape))
    out = np.asarray(crop_in_jit(_keys(2, 1800), copies, padding=1, mode=mode))
    crops = [crop.tobytes() for crop in _all_crops(image, 1, mode, flip=True)]
    frequency = np.bincount([crops.index(result.tobytes()) for result in out], minlength=18)
    assert len(frequency) == 18
    assert frequency.min() > 60  # 100 are expected, with a deviation of 10.
    assert frequency.max() < 140


def test_jit_gives_the_same_and_the_key_decides():
    images = _images(16)
    with jax.numpy_rank_promotion("raise"):
        out = random_crop_flip(_keys(3, 16), jnp.asarray(images), mode="zero")
        in_jit = crop_in_jit(_keys(3, 16), images, mode="zero")
    np.testing.assert_array_equal(out, in_jit)
    np.testing.assert_array_equal(in_jit, crop_in_jit(_keys(3, 16), images, mode="zero"))
    assert not np.array_equal(out, crop_in_jit(_keys(4, 16), images, mode="zero"))


def test_an_image_comes_out_alike_in_any_batch():
    keys, images = _keys(6, 16), _images(16)
    whole = crop_in_jit(keys, images)
    np.testing.assert_array_equal(crop_in_jit(keys[5:9], images[5:9]), whole[5:9])


def test_crop_refuses():
    key, images = _keys(0, 1), _images(1)
    with pytest.raises(ValueError, match="padding is 5 for images of 6×5"):
        random_crop_flip(key, images, padding=5)
    with pytest.raises(ValueError, match="padding is -1 for images of 6×5"):
        random_crop_flip(key, images, padding=-1, mode="zero")
    with pytest.raises(ValueError, match="padding mode is 'edge'; it must be 'reflect' or 'zero'"):
        random_crop_flip(key, images, mode="edge")


@pytest.mark.parametrize("scale", [16.0, 255.0])
def test_standardise_is_the_plain_formula(scale):
    images = np.minimum(_images(4, channels=2), np.uint8(scale))
    mean, std = np.array([0.2, 0.5]), np.array([0.3, 0.1])
    with jax.numpy_rank_promotion("raise"):
        out = jax.jit(lambda x: standardise(x, tuple(mean), tuple(std), scale=scale))(images)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, (images / scale - mean) / std, rtol=1e-5, atol=1e-5)


def test_standardise_takes_one_number_for_all_channels():
    images = _images(2)
    np.testing.assert_array_equal(
        standardise(images, 0.4, 0.2), standardise(images, (0.4,) * 3, (0.2,) * 3)
    )


@pytest.mark.parametrize(("name", "padding"), [("cifar10", "reflect"), ("cifar100", "zero")])
def test_cifar_trains_on_crops_and_evaluates_on_whole_images(name, padding):
    images = _images(8, 32, 32)
    way = preprocessing(name, padding=padding)
    mean, std = np.array([125.3, 123.0, 113.9]), np.array([63.0, 62.1, 66.7])
    np.testing.assert_allclose(way.evaluate(images), (images - mean) / std, rtol=1e-4, atol=1e-5)

    @jax.jit
    def both(key, images):
        crops = random_crop_flip(key, images, mode=padding)
        return way.train(key, images), way.evaluate(crops)

    key = _keys(5, 8)
    trained, expected = both(key, images)
    np.testing.assert_allclose(trained, expected, rtol=1e-5, atol=1e-5)
    assert not np.allclose(trained, way.evaluate(images))
    plain = preprocessing(name, augment=False, padding=padding)
    np.testing.assert_array_equal(plain.train(key, images), way.evaluate(images))


def test_digits_are_standardised_and_left_whole():
    images = _images(8, 8, 8, 1) % 17
    way = preprocessing("digits")
    np.testing.assert_allclose(
        way.evaluate(images), (images / 16 - 0.31) / 0.38, rtol=1e-4, atol=1e-5
    )
    np.testing.assert_array_equal(way.train(_keys(0, 8), images), way.evaluate(images))


def test_the_same_arguments_give_the_same_functions():
    assert preprocessing("cifar10").train is preprocessing("cifar10").train


def test_preprocessing_refuses():
    with pytest.raises(ValueError, match="no preprocessing for 'mnist'; it must be one of digits"):
        preprocessing("mnist")
    with pytest.raises(ValueError, match="padding mode is 'edge'"):
        preprocessing("cifar10", padding="edge")


@pytest.mark.parametrize(
    ("name", "top", "shape"), [("digits", 16, (8, 8, 1)), ("cifar10", 255, (32, 32, 3))]
)
def test_images_that_are_not_as_stored_are_told(name, top, shape):
    """Scaled to 0-1 they once were taken for nearly black ones."""
    way, images = preprocessing(name), np.zeros((2, *shape), np.uint8)
    told = f"{name}: images are float32; give whole numbers from 0 to {top}, as they are stored"
    for way_of in (way.evaluate, lambda x: way.train(_keys(0, 2), x)):
        with pytest.raises(ValueError, match=told):
            way_of(images.astype(np.float32))
        with pytest.raises(ValueError, match=r"images has shape .*; it must be \(any, any"):
            way_of(images[0])
        with pytest.raises(ValueError, match=rf"any, any, any, {shape[-1]}\)"):
            way_of(np.concatenate([images] * 2, axis=-1))
    np.testing.assert_array_equal(way.evaluate(images.astype(np.int32)), way.evaluate(images))
