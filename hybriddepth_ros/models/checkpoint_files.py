"""Files with weights: tensors are read from them, code in them is never run.

safetensors holds nothing but tensors. PyTorch's own format is a pickle, which may hold code: it is read with
`weights_only=True`; where that refuses (a Lightning file with the trainer's objects in it), `_tensors_alone`
takes the tensors and leaves every object unmade.
"""

from __future__ import annotations

import hashlib
import math
import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from hybriddepth_ros.errors import WeightsError, one_line

_PICKLE_LIMIT = 64 << 20  # the description of a checkpoint, tensors apart, is below 1 MB
_BLOCK = 1 << 20
_KINDS = (
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
)
_COPIES = 4  # how often the numbers of a checkpoint may be used: tied weights and averages share some


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    except OSError as error:
        raise WeightsError(f"{path}: expected a file with weights: {error.strerror}") from None
    return digest.hexdigest()


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, a state dict or a Lightning checkpoint, by their names in it.

    WeightsError says why where there are none: not a checkpoint, cut short, or not readable without running
    code.
    """
    if not path.is_file():
        found = "a folder" if path.is_dir() else "nothing"
        raise WeightsError(f"{path}: expected a file with weights, found {found} there")
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise WeightsError(f"{path}: expected a file that can be read: {error.strerror}") from None
    if path.suffix == ".safetensors" or start[8:] == b"{":
        return read_safetensors(path)[0]
    if start.startswith(b"PK"):
        return _read_zip(path)
    if start.startswith(b"\x80"):
        return _state_dict(path, _load_weights_only(path))
    kind = "an empty file" if not start else "none of them"
    raise WeightsError(f"{path}: expected a PyTorch checkpoint or a safetensors file, found {kind}")


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"{path}: expected a whole safetensors file: {one_line(error)}") from None


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors; the file appears under its name when it is whole."""
    from safetensors.torch import save_file

    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # no two entries may share memory in this format: tied or expanded tensors are copied
        save_file({n: t.detach().clone().contiguous() for n, t in tensors.items()}, part, dict(metadata))
        part.chmod(0o644)  # safetensors makes files that nobody else may read
        os.replace(part, path)
    except (OSError, RuntimeError) as error:
        raise WeightsError(f"{path}: expected a place that can be written: {one_line(error)}") from None
    finally:
        part.unlink(missing_ok=True)


def _read_zip(path: Path) -> dict[str, Tensor]:
    try:
        with zipfile.ZipFile(path) as archive:
            blocks = archive.infolist()
            for block in blocks:
                _check_block(archive, block)
    except WeightsError as error:
        raise WeightsError(f"{path}: expected a PyTorch checkpoint: {error}") from None
    except Exception as error:  # what a damaged file makes its readers raise has no end
        raise WeightsError(
            f"{path}: expected a whole PyTorch checkpoint: cut short or damaged ({one_line(error)})"
        ) from None
    if not any(block.filename.endswith("/data.pkl") for block in blocks):
        raise WeightsError(f"{path}: expected a PyTorch checkpoint, found another kind of archive")
    try:
        return _state_dict(path, _load_weights_only(path))
    except _NeedsCodeError:
        return _state_dict(path, _tensors_alone(path))


def _check_block(archive: zipfile.ZipFile, block: zipfile.ZipInfo) -> None:
    """PyTorch neither compresses a block nor looks at its checksum when it reads one."""
    if block.compress_type != zipfile.ZIP_STORED:
        raise WeightsError(f"block {block.filename} is compressed")  # and may unpack to any size
    if block.CRC == 0:  # saved with set_crc32_options(False)
        return
    with archive.open(block) as data:  # which raises at its end where the checksum is another
        while data.read(_BLOCK):
            pass


class _NeedsCodeError(WeightsError):
    """The file can be read by running code of its choice only."""


def _load_weights_only(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise _NeedsCodeError(
            f"{path}: expected a checkpoint that loads with weights_only=True: it is damaged, or holds more"
            " than tensors in a form that keeps them apart from code in no safe way;"
            " save its state_dict by itself"
        ) from None
    except Exception as error:  # see _read_zip
        raise WeightsError(f"{path}: expected a whole PyTorch checkpoint: {one_line(error)}") from None


def _state_dict(path: Path, content: Any) -> dict[str, Tensor]:
    """The tensors of a state dict, bare or in a Lightning file's dictionary."""
    entries = content.get("state_dict", content) if isinstance(content, Mapping) else None
    tensors = {}
    if isinstance(entries, Mapping):
        tensors = {k: v for k, v in entries.items() if isinstance(k, str) and isinstance(v, Tensor)}
    if not tensors:
        raise WeightsError(f"{path}: expected a state dict of names and tensors, found no tensor by its name")
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.dtype not in _KINDS:
            kind = f"{tensor.dtype}, {tensor.layout}, {tensor.device}"
            raise WeightsError(f"{path}: expected plain tensors of real numbers, {name} is {kind}")
    return tensors


# ---- tensors without code


@dataclass
class _Storage:
    """One block of memory in the archive, not read yet."""

    key: str
    dtype: torch.dtype
    count: int


class _Inert:
    """Stands for any object that a checkpoint asks to be made: takes everything and does nothing."""

    def __new__(cls, *_: Any, **__: Any) -> _Inert:
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        """Whatever the checkpoint passes."""

    def __call__(self, *_: Any, **__: Any) -> _Inert:
        return self

    def __setstate__(self, _: Any) -> None:
        """The state of an object that is not made."""

    def __setitem__(self, *_: Any) -> None:
        """Items of a dictionary that is not made."""

    def append(self, _: Any) -> None:
        """Items of a list that is not made."""

    def extend(self, _: Any) -> None:
        """Items of a list that is not made."""

    def __hash__(self) -> int:
        return id(self)


_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


# Not pickle.Unpickler: written in C, it takes memory by the largest index in a file, gigabytes for 300 bytes.
class _TensorUnpickler(pickle._Unpickler):
    """Knows dictionaries, tensors and storages; every other name in the pickle becomes an `_Inert`."""

    # Without byte arrays: memory for them is taken by what the file says, before anything is read.
    dispatch: ClassVar = {
        code: load for code, load in pickle._Unpickler.dispatch.items() if code != pickle.BYTEARRAY8[0]
    }

    def __init__(self, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(archive.open(f"{folder}/data.pkl"), encoding="utf-8")
        self._archive, self._folder = archive, folder
        self._blocks: dict[str, Tensor] = {}
        self._spare = _COPIES * sum(info.file_size for info in archive.infolist())  # bytes

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch._utils" and name in ("_rebuild_tensor_v2", "_rebuild_tensor"):
            return self._rebuild
        if module == "torch._utils" and name == "_rebuild_parameter":
            return lambda tensor, *_: tensor
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        return _Inert

    def persistent_load(self, identity: Any) -> Any:
        """A storage: ("storage", its type, the name of its block, where it was, how many elements)."""
        kind, dtype, key, _, count = identity
        if kind != "storage" or not isinstance(dtype, torch.dtype) or not isinstance(key, str):
            return _Inert()
        return _Storage(key, dtype, int(count))

    def _rebuild(self, storage: Any, offset: int, size: Any, stride: Any, *_: Any) -> Any:
        """The tensor itself; bounds are checked here, as the numbers come from the file."""
        if not isinstance(storage, _Storage):
            return _Inert()
        sides, steps = [int(n) for n in size], [int(n) for n in stride]
        if offset < 0 or len(sides) != len(steps) or any(n < 0 for n in (*sides, *steps)):
            raise WeightsError("a tensor of impossible shape")
        reach = sum((n - 1) * step for n, step in zip(sides, steps, strict=True))
        if math.prod(sides) > storage.count or (0 not in sides and offset + reach >= storage.count):
            raise WeightsError("a tensor that is larger than its storage")
        if 0 in sides:
            return torch.empty(sides, dtype=storage.dtype)
        tensor = self._block(storage).as_strided(sides, steps, offset)
        self._spare -= tensor.nbytes
        if self._spare < 0:
            raise WeightsError("the same numbers many times over")
        return tensor.clone()

    def _block(self, storage: _Storage) -> Tensor:
        if storage.key not in self._blocks:
            data = self._archive.read(f"{self._folder}/data/{storage.key}")
            if len(data) != storage.count * storage.dtype.itemsize:
                raise WeightsError(f"block {storage.key} of another length than announced")
            self._blocks[storage.key] = torch.frombuffer(bytearray(data), dtype=storage.dtype)
        return self._blocks[storage.key]


def _tensors_alone(path: Path) -> Any:
    """What the pickle in a PyTorch archive builds when only containers and tensors are made of it."""
    try:
        with zipfile.ZipFile(path) as archive:
            pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            folder = pickles[0].removesuffix("/data.pkl")
            if archive.getinfo(pickles[0]).file_size > _PICKLE_LIMIT:
                raise WeightsError("a description of its tensors that is too long to be one")
            order = f"{folder}/byteorder"
            if order in archive.namelist() and archive.read(order) != b"little":
                raise WeightsError("big-endian numbers")
            return _TensorUnpickler(archive, folder).load()
    except Exception as error:  # see _read_zip
        raise WeightsError(f"{path}: expected tensors that can be taken alone: {one_line(error)}") from None
