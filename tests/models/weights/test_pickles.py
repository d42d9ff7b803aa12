"""Pickles within files of weights: what no file says, and no hostile one can do."""

import io

import pytest

from otrw_jax.models.weights import pickles
from tests.models.weights import pth_files as make
from tests.models.weights.pth_cases import FORMATS, NUMBERS, PLAIN, assert_arrays, assert_sentence

HOSTILE = {
    "another global": (make.name("os.system"), "names 'os.system', which weights do not need"),
    "a call of one": (make.call("posix.system", "touch x"), "names 'posix.system'"),
    "a builtin": (make.call("builtins.eval", "1"), "names 'builtins.eval'"),
    "a class of a network": (make.call("torchvision.models.resnet.ResNet"), "the state dict alone"),
    "a call of a type": (make.call("torch.FloatStorage", 10**9), "calls torch.FloatStorage"),
    "a call of a text": (make.Raw(make.code_of("w") + b")R"), "calls a str"),
    "a call without a tuple": (make.Raw(make.name("torch.Size").code + b"]R"), "with a list"),
    "an instance": (make.Raw(make.name("torch.Size").code + b")\x81"), "instruction NEWOBJ"),
    "an extension": (make.Raw(b"\x82\x01"), "instruction EXT1"),
    "attributes of a name": (
        make.Raw(make.name("torch._utils._rebuild_tensor_v2").code + b"}b"),
        "sets attributes of a Name",
    ),
    "a tensor of no storage": (
        make.call("torch._utils._rebuild_tensor_v2", "0", 0, (1,), (1,)),
        "makes a tensor of a str",
    ),
    "a parameter of no tensor": (make.call("torch._utils._rebuild_parameter", 1), "of a int"),
    "too few arguments": (make.call("torch._utils._rebuild_tensor_v2", 1), "not well-formed"),
    "an item of no dict": (make.Raw(b"]K\x01K\x01s"), "sets items of a list"),
    "an appended item of no list": (make.Raw(b"}Na"), "appends to a dict"),
    "a tuple as a name": (make.Raw(b"})Ns"), "a tuple as a name"),
    "a large number as a name": ({2**61 - 1: 1}, "a int as a name"),
    "an empty stack": (make.Raw(b"R"), "not well-formed"),
    "no mark": (make.Raw(b"t"), "not well-formed"),
    "an unknown place of the memo": (make.Raw(b"h\x07"), "not well-formed"),
    "a text beyond the end": (make.Raw(b"X\xff\xff\xff\x7fw"), "cut off or not well-formed"),
    "bytes beyond the end": (make.Raw(b"\x8e" + b"\xff" * 7 + b"\x7f"), "cut off"),
    "no instruction": (make.Raw(b"\xfe"), "not well-formed"),
    "one storage in two ways": (
        {"a": make.tensor(), "b": make.tensor(make.storage(kind="Int"))},
        "storage '0' is described in two ways",
    ),
    "a quantised storage": (make.storage(kind="QInt8"), "names 'torch.QInt8Storage'"),
    "a storage within another": (make.storage("0", "Float", 6, ("1", 0, 3)), "no plain storage"),
    "a number as a storage": (make.Raw(b"K\x01Q"), "no plain storage"),
    "a negative length": (make.storage(count=-1), "no plain storage"),
    "a negative offset": ({"w": make.tensor(offset=-1)}, "'w' has no proper offset"),
    "a negative side": ({"w": make.tensor(shape=(-2, -3))}, "no proper offset, shape"),
    "a negative stride": ({"w": make.tensor(offset=5, strides=(-3, -1))}, "no proper offset"),
    "a huge stride": ({"w": make.tensor(shape=(1, 1), strides=(2**63, 1))}, "no proper"),
    "a huge shape of nothing": (
        {"w": make.tensor(shape=(0, 2**40, 2**40), strides=(1, 1, 1))},
        "no proper",
    ),
    "a fraction": ({"w": make.tensor(offset=0.5)}, "no proper"),
    "a shape that is a list": ({"w": make.tensor(shape=[2, 3])}, "no proper"),
    "strides too few": ({"w": make.tensor(strides=(1,))}, "no proper"),
    "many dimensions": ({"w": make.tensor(shape=(1,) * 40, strides=(1,) * 40)}, "no proper"),
    "an offset beyond the storage": ({"w": make.tensor(offset=1)}, "to place 6 of a storage of 6"),
    "a shape beyond the storage": ({"w": make.tensor(shape=(3, 3))}, "to place 8 of a storage"),
    "a stride beyond the storage": ({"w": make.tensor(strides=(9, 1))}, "to place 11 of"),
    "one place many times": (
        {"w": make.tensor(shape=(10**6, 10**6), strides=(0, 0))},
        "share a place",
    ),
    "overlapping rows": ({"w": make.tensor(strides=(1, 1))}, "share a place"),
    "rows that overlap in part": ({"w": make.tensor(strides=(2, 1))}, "share a place"),
    "no dict": ([make.tensor()], "holds a list, not tensors by name"),
    "no tensors": (
        {"epoch": 1, "model_best": PLAIN},
        "no tensors by name, but 'epoch', 'model_best'",
    ),
    "a name twice": ({"w": make.tensor(), "module.w": make.tensor()}, "two tensors 'w'"),
}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("case", HOSTILE)
def test_what_no_file_of_weights_says(read, case, kind):
    value, message = HOSTILE[case]
    with pytest.raises(ValueError, match=message) as error:
        read(FORMATS[kind](value, {"0": NUMBERS}))
    assert_sentence(error)


def test_a_list_makes_one_dict(read):
    """A short pickle that makes many of a long list would fill the memory."""
    pair = make.code_of(["w", make.tensor()])
    again = make.name("collections.OrderedDict").code + b"h\x01\x85R"
    value = make.Raw(b"](" + pair + b"eq\x01" + b"\x85" + again + again + b"\x87")
    content = make.pickled(value)
    (_, first, second), _ = pickles.read_pickle(io.BytesIO(content))
    assert list(first) == ["w"] and second == {}


def test_loops_of_references_are_not_followed(read):
    loop = make.Raw(b"}q\x01" + make.items(PLAIN | {"itself": make.Raw(b"h\x01")}))
    assert_arrays(read(make.zip_file(loop, {"0": NUMBERS})), {"w": NUMBERS.reshape(2, 3)})


def test_long_pickles_are_not_read_to_their_end(read, monkeypatch):
    monkeypatch.setattr(pickles, "MOST_INSTRUCTIONS", 10)
    with pytest.raises(ValueError, match="more than 10 instructions"):
        read(make.zip_file(PLAIN, {"0": NUMBERS}))
