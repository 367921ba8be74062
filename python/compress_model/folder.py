"""The folder: manifest, stored tensors, adapters."""

import json
import mmap
import re
import warnings
from pathlib import Path

import numpy as np

from . import astc, bc4, packed

FORMAT_VERSION = (1, 3)
CODECS = {"grid2": packed.grid2, "int4": packed.int4, "astc": astc.decode, "bc4": bc4.decode}
DTYPES = {
    "BOOL": "?", "U8": "<u1", "I8": "<i1", "U16": "<u2", "I16": "<i2", "U32": "<u4", "I32": "<i4",
    "U64": "<u8", "I64": "<i8", "F16": "<f2", "F32": "<f4", "F64": "<f8", "BF16": "<u2",
}  # fmt: skip
ADAPTER_PREFIX = "base_model.model."


class FormatError(Exception):
    """The folder is not what docs/format.md describes."""


def check_version(version):
    """A newer major version is refused, a newer minor one may have keys that are not known."""
    found = re.fullmatch(r"(\d+)\.(\d+)", version or "")
    if not found:
        raise FormatError(f"format version {version!r} is not major.minor")
    major, minor = int(found[1]), int(found[2])
    known = ".".join(map(str, FORMAT_VERSION))
    if major != FORMAT_VERSION[0]:
        raise FormatError(f"format version {version}; this package reads {known}")
    if minor > FORMAT_VERSION[1]:
        warnings.warn(f"format version {version} is newer than {known}: unknown keys are ignored", stacklevel=3)


class SafetensorsFile:
    """A safetensors file, mapped. The safetensors package has no bfloat16 in numpy."""

    def __init__(self, path):
        self.path = path
        with path.open("rb") as file:
            self.map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        length = int.from_bytes(self.map[:8], "little")
        if length > len(self.map) - 8:
            raise FormatError(f"{path}: header of {length} bytes in a file of {len(self.map)}")
        self.tensors = json.loads(self.map[8 : 8 + length])
        self.tensors.pop("__metadata__", None)
        self.start = 8 + length

    def array(self, name):
        """The tensor, not copied; bfloat16 as its bits."""
        entry = self.tensors[name]
        begin, end = entry["data_offsets"]
        dtype = np.dtype(DTYPES[entry["dtype"]])
        count = (end - begin) // dtype.itemsize
        flat = np.frombuffer(self.map, dtype, count, self.start + begin)
        return flat.reshape(entry["shape"])

    def float32(self, name):
        array = self.array(name)
        if self.tensors[name]["dtype"] == "BF16":
            return (array.astype(np.uint32) << 16).view(np.float32)
        return array.astype(np.float32)


def open(path):  # noqa: A001 - reads as compress_model.open(...)
    """Opens a folder that `compress-model compress` wrote."""
    return Folder(path)


class Folder:
    """A compressed folder. Weights come out as float32 arrays."""

    def __init__(self, path):
        self.path = Path(path)
        manifest = self.path / "manifest.json"
        if not manifest.is_file():
            raise FormatError(f"{self.path}: has no manifest.json")
        self.manifest = json.loads(manifest.read_text(encoding="utf-8"))
        check_version(self.manifest.get("format_version"))
        self.entries = {entry["name"]: entry for entry in self.manifest["tensors"]}
        self._files = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._files.clear()

    def names(self):
        """Every tensor of the source, in the manifest's order."""
        return list(self.entries)

    def tied_to(self, name):
        """The tensor that holds the same weights, or None."""
        entry = self.entries[name]
        return entry["to"] if entry["status"] == "tied" else None

    def stored(self, name):
        """The stored parts of a tensor as they lie on the disk, by suffix; a kept tensor has the
        suffix ""."""
        parts = self.entries[name].get("parts", [])
        return {part["name"][len(name) + 1 :]: self._file(part["file"]).array(part["name"]) for part in parts}

    def adapter(self, name):
        """(A, B) of a tensor in float16, or None: its weight is decoded + B A."""
        entry = self.entries[name].get("adapter")
        if entry is None:
            return None
        file = self._file("adapter_model.safetensors")
        module = ADAPTER_PREFIX + entry["module"]
        return file.array(f"{module}.lora_A.weight"), file.array(f"{module}.lora_B.weight")

    def weight(self, name, adapter=True):
        """The decoded tensor in float32, with its adapter added unless told otherwise."""
        entry = self.entries[name]
        status = entry["status"]
        if status == "tied":
            return self.weight(entry["to"], adapter)
        if status == "kept":
            (part,) = entry["parts"]
            return self._file(part["file"]).float32(part["name"])
        if status != "coded" or entry["codec"] not in CODECS:
            raise FormatError(f"{name}: status {status!r}, codec {entry.get('codec')!r} is not known")
        *stack, rows, cols = entry["shape"]
        parts, decode = self.stored(name), CODECS[entry["codec"]]
        try:
            if not stack:
                weight = decode(parts, entry["params"], rows, cols)
            else:
                experts = [{key: part[i] for key, part in parts.items()} for i in range(stack[0])]
                weight = np.stack([decode(p, entry["params"], rows, cols) for p in experts])
        except astc.Unsupported as error:
            raise FormatError(f"{name}: a block that cannot be decoded: {error}") from None
        factors = self.adapter(name) if adapter else None
        return weight if factors is None else add(weight, *factors)

    def _file(self, name):
        if name not in self._files:
            path = self.path / name
            if "/" in name or not path.is_file():
                raise FormatError(f"{path}: no such file")
            self._files[name] = SafetensorsFile(path)
        return self._files[name]


def add(weight, a, b):
    """weight + B A in float32: the products of each weight are summed in order of rank, each
    operation rounded, and the sum is then added."""
    a, b = a.astype(np.float32), b.astype(np.float32)
    update = np.zeros_like(weight)
    for k in range(len(a)):
        update += b[:, k : k + 1] * a[k]
    return weight + update
