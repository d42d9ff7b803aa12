"""Files as torch.save writes them, made by hand: pickles of the instructions that it uses."""

import io
import pickle
import struct
import zipfile

MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001
TYPES = {
    "float64": "Double",
    "float32": "Float",
    "float16": "Half",
    "bfloat16": "BFloat16",
    "int64": "Long",
    "bool": "Bool",
}


class Raw:
    """Instructions of a pickle that are put in as they are."""

    def __init__(self, code):
        self.code = code


def text(value):
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def code_of(value):
    """The instructions that make a value."""
    match value:
        case Raw():
            return value.code
        case None:
            return b"N"
        case bool():
            return b"\x88" if value else b"\x89"
        case int() if 0 <= value < 2**31:
            return b"J" + struct.pack("<i", value)
        case int():
            number = pickle.encode_long(value)
            return b"\x8a" + bytes([len(number)]) + number
        case float():
            return b"G" + struct.pack(">d", value)
        case str():
            return text(value)
        case tuple():
            return b"(" + b"".join(map(code_of, value)) + b"t"
        case list():
            return b"](" + b"".join(map(code_of, value)) + b"e"
        case dict():
            return b"}" + items(value)
    raise TypeError(value)


def items(pairs):
    """The instructions that put pairs into the dict at hand."""
    return b"(" + b"".join(code_of(key) + code_of(item) for key, item in pairs.items()) + b"u"


def name(dotted):
    module, _, last = dotted.rpartition(".")
    return Raw(f"c{module}\n{last}\n".encode())


def call(dotted, *arguments):
    return Raw(name(dotted).code + code_of(arguments) + b"R")


def storage(key="0", kind="Float", count=6, *rest):
    described = ("storage", name(f"torch.{kind}Storage"), key, "cpu", count, *rest)
    return Raw(code_of(described) + b"Q")


def tensor(stored=None, offset=0, shape=(2, 3), strides=(3, 1)):
    hooks = call("collections.OrderedDict")
    return call(
        "torch._utils._rebuild_tensor_v2", stored or storage(), offset, shape, strides, False, hooks
    )


def of_array(array, key):
    """The tensor of an array that fills a storage of its own, in its order."""
    strides = tuple(step // array.itemsize for step in array.strides)
    return tensor(storage(key, TYPES[array.dtype.name], array.size), 0, array.shape, strides)


def pickled(value):
    return b"\x80\x02" + code_of(value) + b"."


def zip_file(value, storages, extra=(), compression=zipfile.ZIP_STORED, root="archive/"):
    """A file of torch.save, 1.6 and later; `extra` are further entries."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        archive.writestr(f"{root}data.pkl", pickled(value))
        for key, content in storages.items():
            archive.writestr(f"{root}data/{key}", bytes_of(content))
        archive.writestr(f"{root}version", "3\n")
        for entry, content in extra:
            archive.writestr(entry, content)
    return stream.getvalue()


def legacy_file(value, storages, magic=MAGIC, version=VERSION, little=True, keys=None, counts=None):
    """A file of torch.save before 1.6."""
    system = {"protocol_version": VERSION, "little_endian": little, "type_sizes": {"int": 4}}
    # Here a reference to a storage ends in what it is a view of, which is nothing.
    value = pickled(value).replace(b"tQ", b"NtQ")
    parts = [pickled(magic), pickled(version), pickled(system), value]
    parts.append(pickled(list(storages) if keys is None else keys))
    for key, content in storages.items():
        count = len(content) // 4 if isinstance(content, bytes) else content.size
        parts += [struct.pack("<q", (counts or {}).get(key, count)), bytes_of(content)]
    return b"".join(parts)


def bytes_of(content):
    return content if isinstance(content, bytes) else content.tobytes(order="A")
