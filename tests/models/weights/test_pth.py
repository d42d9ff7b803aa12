"""Files of torch.save without it: what is read, and what no hostile or damaged file can do."""

import io
import struct
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest

from otrw_jax.models.weights.files import read_tensors
from tests.models.weights import pth_files as make
from tests.models.weights.pth_cases import (
    ARRAYS,
    FORMATS,
    NUMBERS,
    PLAIN,
    assert_arrays,
    assert_sentence,
)


def state_dict():
    """The arrays as tensors by name, and their storages."""
    tensors = {name: make.of_array(array, str(i)) for i, (name, array) in enumerate(ARRAYS.items())}
    return tensors, {str(i): array for i, array in enumerate(ARRAYS.values())}


@pytest.mark.parametrize("kind", FORMATS)
def test_types_and_strides(read, kind):
    assert_arrays(read(FORMATS[kind](*state_dict())))


@pytest.mark.parametrize("kind", FORMATS)
def test_views_of_one_storage(read, kind):
    """An offset, a transpose, a stride over others' elements, a number, and nothing at all."""
    tensors = {
        "end": make.tensor(offset=4, shape=(2,), strides=(1,)),
        "transposed": make.tensor(shape=(3, 2), strides=(1, 3)),
        "every_second": make.tensor(offset=1, shape=(3, 1), strides=(2, 99)),
        "number": make.tensor(offset=5, shape=(), strides=()),
        "empty": make.tensor(shape=(0, 3), strides=(3, 1)),
    }
    found = read(FORMATS[kind](tensors, {"0": NUMBERS}))
    wanted = {
        "end": NUMBERS[4:],
        "transposed": NUMBERS.reshape(2, 3).T,
        "every_second": NUMBERS[1::2, None],
        "number": NUMBERS[5],
        "empty": np.zeros((0, 3), np.float32),
    }
    assert_arrays(found, wanted)
    with pytest.raises(ValueError, match="read-only"):
        found["end"][0] = 1


def test_what_programs_save_beside_the_network(read):
    """Numbers, an optimiser's state, a best accuracy of NumPy, parameters, a module's versions."""
    parameter = make.call("torch._utils._rebuild_parameter", make.tensor(), False)
    versions = {"_metadata": make.call("collections.OrderedDict")}
    ordered = make.call("collections.OrderedDict").code + make.items({"module.w": parameter})
    ordered = make.Raw(ordered + make.code_of(versions) + b"b")
    best = make.call(
        "numpy.core.multiarray.scalar",
        make.call("numpy.dtype", "f8", False, True),
        make.call("_codecs.encode", "\x00\x00", "latin1"),
    )
    saved = {
        "epoch": 90,
        "best": best,
        "loss": 0.25,
        "size": make.call("torch.Size", (2, 3)),
        "optimizer": {"state": {0: {"momentum_buffer": make.tensor()}}, "param_groups": [None]},
        "state_dict": ordered,
    }
    assert_arrays(read(make.zip_file(saved, {"0": NUMBERS})), {"w": NUMBERS.reshape(2, 3)})


def test_a_file_of_python_2(read):
    """Its ordered dicts come of lists of pairs, its names are bytes."""
    pair = make.Raw(b"](U\x01w" + make.tensor().code + b"e")
    saved = make.call("collections.OrderedDict", [pair])
    assert_arrays(read(make.legacy_file(saved, {"0": NUMBERS})), {"w": NUMBERS.reshape(2, 3)})


def with_entry(content, name, change):
    """A zip archive with the record of an entry in its directory changed, unchecked by zipfile."""
    at = content.index(name.encode(), content.index(b"PK\x01\x02"))
    start = content.rindex(b"PK\x01\x02", 0, at)
    record = bytearray(content[start:at])
    change(record)
    return content[:start] + bytes(record) + content[at:]


def sizes(stored, unpacked):
    return lambda record: record.__setitem__(slice(20, 28), struct.pack("<II", stored, unpacked))


def zipped(name, change):
    return with_entry(make.zip_file(PLAIN, {"0": NUMBERS}), name, change)


def twice():
    with pytest.warns(UserWarning, match="Duplicate"):
        return make.zip_file(PLAIN, {"0": NUMBERS}, [("archive/data/0", bytes(24))])


WHOLE = {name: form(PLAIN, {"0": NUMBERS}) for name, form in FORMATS.items()}
DAMAGED = {
    "nothing": (lambda: b"", "neither a zip archive nor a legacy file"),
    "a page": (lambda: b"<html>404</html>", "neither a zip archive nor a legacy file"),
    "a plain pickle": (lambda: make.pickled(PLAIN), "neither a zip archive nor a legacy"),
    "another magic number": (
        lambda: make.legacy_file(PLAIN, {"0": NUMBERS}, magic=7),
        "neither a zip archive nor a legacy file",
    ),
    "another version": (
        lambda: make.legacy_file(PLAIN, {"0": NUMBERS}, version=1002),
        "its format is not 1001",
    ),
    "big-endian numbers": (
        lambda: make.legacy_file(PLAIN, {"0": NUMBERS}, little=False),
        "not little-endian",
    ),
    "big-endian numbers, zip": (
        lambda: make.zip_file(PLAIN, {"0": NUMBERS}, [("archive/byteorder", b"big")]),
        "not little-endian",
    ),
    "a legacy file cut off": (lambda: WHOLE["legacy"][:-1], "storage '0' has 23 bytes"),
    "a legacy file without numbers": (lambda: WHOLE["legacy"][:-28], "storage '0' is cut off"),
    "another number of numbers": (
        lambda: make.legacy_file(PLAIN, {"0": NUMBERS}, counts={"0": 2**40}),
        "storage '0' is cut off or of another length",
    ),
    "a claim of many numbers": (
        lambda: make.legacy_file(
            {"w": make.tensor(make.storage(count=2**40))}, {"0": NUMBERS}, counts={"0": 2**40}
        ),
        "has 24 bytes; it must have 4398046511104",
    ),
    "other storages": (
        lambda: make.legacy_file(PLAIN, {"0": NUMBERS}, keys=["1"]),
        "list of storages is not that of its tensors",
    ),
    "a storage twice": (
        lambda: make.legacy_file(PLAIN, {"0": NUMBERS}, keys=["0", "0"]),
        "list of storages is not that of its tensors",
    ),
    "no list of storages": (
        lambda: make.legacy_file(PLAIN, {"0": NUMBERS}, keys=3),
        "no list of its storages",
    ),
    "a zip archive cut off": (lambda: WHOLE["zip"][:-30], "zip archive is damaged"),
    "other bytes in a storage": (
        lambda: WHOLE["zip"].replace(NUMBERS.tobytes(), (NUMBERS + 1).tobytes()),
        "zip archive is damaged",
    ),
    "a storage too short": (
        lambda: make.zip_file(PLAIN, {"0": NUMBERS[:5]}),
        "storage '0' has 20 bytes; it must have 24",
    ),
    "a storage too long": (lambda: make.zip_file(PLAIN, {"0": bytes(28)}), "has 28 bytes"),
    "no storage": (lambda: make.zip_file(PLAIN, {}), "storage '0' is missing"),
    "a storage of another folder": (
        lambda: make.zip_file({"w": make.tensor(make.storage("../../x"))}, {"0": NUMBERS}),
        "storage '../../x' is missing",
    ),
    "no pickle": (
        lambda: make.zip_file(PLAIN, {"0": NUMBERS}).replace(b"data.pkl", b"data.pkk"),
        "0 files data.pkl",
    ),
    "two pickles": (
        lambda: make.zip_file(PLAIN, {"0": NUMBERS}, [("other/data.pkl", b"")]),
        "2 files data.pkl",
    ),
    "a name twice": (twice, "has a name twice"),
    "a zip bomb": (
        lambda: make.zip_file(PLAIN, {"0": bytes(10**6)}, compression=zipfile.ZIP_DEFLATED),
        "is compressed, which PyTorch never does",
    ),
    "sizes that differ": (lambda: zipped("archive/data/0", sizes(24, 2**31)), "is compressed"),
    "entries over one another": (
        lambda: zipped("archive/data/0", sizes(2**31, 2**31)),
        r"entries claim \d+ bytes, and the file has",
    ),
    "an entry beyond the end": (
        lambda: zipped(
            "archive/data/0", lambda record: record.__setitem__(slice(42, 46), b"\xf0\xff\xff\x7f")
        ),
        "zip archive is damaged",
    ),
    "a secret": (
        lambda: zipped("archive/data.pkl", lambda record: record.__setitem__(8, record[8] | 1)),
        "zip archive is damaged",
    ),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_files(read, case):
    content, message = DAMAGED[case]
    with pytest.raises(ValueError, match=message) as error:
        read(content())
    assert_sentence(error)


@pytest.mark.parametrize("kind", FORMATS)
def test_every_cut_is_noticed(read, kind):
    for end in range(len(WHOLE[kind])):
        with pytest.raises(ValueError) as error:
            read(WHOLE[kind][:end])
        assert_sentence(error)


@pytest.mark.parametrize("kind", FORMATS)
def test_any_changed_byte_ends_in_an_array_or_a_sentence(read, kind):
    rng, refused = np.random.default_rng(1), 0
    for _ in range(600):
        content = bytearray(WHOLE[kind])
        for at in rng.integers(0, len(content), rng.integers(1, 4)):
            content[at] = rng.integers(256)
        try:
            for array in read(bytes(content)).values():
                assert array.size <= 6
        except ValueError as error:
            refused += 1
            assert str(error).endswith(".") and "cannot be read as a .pth file: " in str(error)
    assert refused > 300


def test_files_that_are_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.pth is no file"):
        read_tensors(tmp_path / "absent.pth")


@pytest.mark.parametrize("kind", FORMATS)
def test_installed_pytorch_agrees(tmp_path, kind):
    """Of the files made here, and of its own."""
    torch = pytest.importorskip("torch")
    made = FORMATS[kind](*state_dict())
    as_numpy = {
        name: x.float().numpy().astype(jnp.bfloat16) if x.dtype == torch.bfloat16 else x.numpy()
        for name, x in torch.load(io.BytesIO(made), weights_only=True).items()
    }
    assert_arrays(as_numpy)
    network = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3, bias=False), torch.nn.BatchNorm2d(3))
    network = torch.nn.DataParallel(network.to(memory_format=torch.channels_last))
    optimizer = torch.optim.Adam(network.parameters())
    saved = {
        "state_dict": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "best": np.float64(0.5),
        "device": torch.device("cpu"),
        "size": torch.ones(2, 3).size(),
    }
    path = tmp_path / "saved.pth"
    torch.save(saved, path, _use_new_zipfile_serialization=kind == "zip")
    wanted = {name: x.numpy() for name, x in network.module.state_dict().items()}
    assert_arrays(read_tensors(path), wanted)
