"""Tensors are read from any file that holds them, and code in a file is never run."""

from __future__ import annotations

import io
import os
import pickle
import random
import sys
import tracemalloc
import types
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from torch import Tensor

from hybriddepth_ros.errors import WeightsError
from hybriddepth_ros.models import checkpoint_files
from hybriddepth_ros.models.checkpoint_files import read_checkpoint


class RunsCode:
    """A pickle of it makes a file when it is read by whoever runs what a pickle says."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch '{self.marker}'",)


def tensors() -> dict[str, Tensor]:
    """Of every kind that a state dict may hold."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(4, 6, generator=generator)
    return {
        "plain": values,
        "transposed": values.t(),  # shares the storage of `plain`
        "part": values[1:3, ::2],
        "parameter": torch.nn.Parameter(torch.randn(3, generator=generator)),
        "half": values.half(),
        "bfloat": values.bfloat16(),
        "double": values.double(),
        "counter": torch.tensor(7),
        "flags": values > 0,
        "none of it": torch.zeros(0, 3),
    }


def trainers_object() -> Any:
    """Of a class that nobody who reads the file can import: only the name is in the pickle."""
    module = types.ModuleType("a_trainer_that_is_gone")
    module.Callback = type("Callback", (), {"__module__": module.__name__})  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module
    callback = module.Callback()
    callback.monitor, callback.scores = "val_loss", [1.0, 2.0]
    return callback


def save_with_trainer(path: Path, state_dict: dict[str, Any], **more: Any) -> None:
    """A Lightning file that weights_only=True refuses."""
    trainer = trainers_object()
    # the object first: it is what a reader meets before any tensor
    torch.save({"callbacks": {"early": trainer}, "state_dict": state_dict, "epoch": 3, **more}, path)
    del sys.modules[type(trainer).__module__]


def assert_same(read: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert read.keys() == expected.keys()
    for name, tensor in expected.items():
        assert read[name].dtype == tensor.dtype and torch.equal(read[name], tensor.detach()), name


def refused(path: Path, *names: str) -> None:
    with pytest.raises(WeightsError) as raised:
        read_checkpoint(path)
    message = str(raised.value)
    assert "\n" not in message and str(path) in message
    for name in names:
        assert name in message


def rewritten(
    path: Path, change: Callable[[str, bytes], bytes], compression: int = zipfile.ZIP_STORED
) -> None:
    """The archive with what `change` makes of each entry; checksums fit."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(name, change(name, data))


# ---- what is read


@pytest.mark.parametrize("wrap", [dict, lambda t: {"state_dict": t, "epoch": 3, "loops": {}}])
@pytest.mark.parametrize("archive", [True, False])
def test_state_dicts_and_lightning_files_of_both_formats_are_read(
    tmp_path: Path, wrap: Callable[[Any], Any], archive: bool
) -> None:
    torch.save(wrap(tensors()), tmp_path / "a.ckpt", _use_new_zipfile_serialization=archive)
    assert_same(read_checkpoint(tmp_path / "a.ckpt"), tensors())


def test_safetensors_are_known_by_content_whatever_they_are_called(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(save({"a": torch.ones(2), "b": torch.zeros(3)}))
    assert_same(read_checkpoint(tmp_path / "a.bin"), {"a": torch.ones(2), "b": torch.zeros(3)})


def test_tensors_are_taken_where_the_trainers_objects_cannot_be_made(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    save_with_trainer(path, tensors())
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)
    assert_same(read_checkpoint(path), tensors())


def test_a_checkpoint_that_was_saved_without_checksums_is_read(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(tensors(), tmp_path / "a.ckpt")
    finally:
        torch.serialization.set_crc32_options(True)
    assert_same(read_checkpoint(tmp_path / "a.ckpt"), tensors())


# ---- code


@pytest.mark.parametrize("where", ["beside the tensors", "among the tensors", "as the dictionary"])
def test_code_in_a_checkpoint_is_not_run_and_the_tensors_are_taken(tmp_path: Path, where: str) -> None:
    path, marker = tmp_path / "a.ckpt", tmp_path / "it ran"
    code = RunsCode(marker)
    content: dict[str, Any] = {"state_dict": {"a": torch.ones(2)}}
    if where == "beside the tensors":
        content = {"hyper_parameters": code, **content}
    elif where == "among the tensors":
        content["state_dict"] = {"b": code, **content["state_dict"]}
    else:
        content["state_dict"] = code
    torch.save(content, path)
    if where == "as the dictionary":
        refused(path, "no tensor")
    else:
        assert_same(read_checkpoint(path), {"a": torch.ones(2)})
    assert not marker.exists()
    torch.load(path, weights_only=False)  # it would have run
    assert marker.exists()


def test_code_in_a_file_of_the_old_format_is_not_run(tmp_path: Path) -> None:
    path, marker = tmp_path / "a.ckpt", tmp_path / "it ran"
    torch.save({"a": torch.ones(2), "b": RunsCode(marker)}, path, _use_new_zipfile_serialization=False)
    refused(path, "weights_only=True", "state_dict")
    assert not marker.exists()
    torch.load(path, weights_only=False)
    assert marker.exists()


# ---- what is no whole checkpoint


@pytest.mark.parametrize("kept", [0.02, 0.5, 0.97, 0.999])
def test_a_checkpoint_that_is_cut_short_is_refused(tmp_path: Path, kept: float) -> None:
    path = tmp_path / "a.ckpt"
    torch.save(tensors(), path)
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    refused(path, "cut short or damaged")


@pytest.mark.parametrize("kept", [4, 30, 100, -1])
def test_safetensors_that_are_cut_short_are_refused(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(save({"a": torch.ones(100), "b": torch.zeros(3)})[:kept])
    refused(path, "whole safetensors file")


def test_one_changed_bit_in_a_checkpoint_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    torch.save({"a": torch.ones(5000)}, path)
    data = bytearray(path.read_bytes())
    data[data.index(torch.ones(5).numpy().tobytes()) + 8002] ^= 1
    path.write_bytes(data)
    assert torch.load(path, weights_only=True)["a"].sum() != 5000  # PyTorch does not look
    refused(path, "damaged", "data/0")


@pytest.mark.parametrize(
    ("content", "found"),
    [(b"", "an empty file"), (b"just text, no weights", "none of them"), (b"\x80\x02cut", "damaged")],
)
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes, found: str) -> None:
    (tmp_path / "a.ckpt").write_bytes(content)
    refused(tmp_path / "a.ckpt", found)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, "a folder")
    refused(tmp_path / "absent.ckpt", "nothing")


def test_another_archive_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.ckpt", "w") as archive:
        archive.writestr("readme.txt", "no weights")
    refused(tmp_path / "a.ckpt", "another kind of archive")


def test_a_file_without_tensors_is_refused(tmp_path: Path) -> None:
    for content in ({"state_dict": {}}, {"epoch": 3}, [torch.ones(2)]):
        torch.save(content, tmp_path / "a.ckpt")
        refused(tmp_path / "a.ckpt", "no tensor")


# ---- files made to mislead the reader of tensors alone


def test_a_compressed_block_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    torch.save({"a": torch.zeros(100_000)}, path)
    rewritten(path, lambda _, data: data, zipfile.ZIP_DEFLATED)
    refused(path, "compressed")


def test_big_endian_numbers_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    save_with_trainer(path, {"a": torch.ones(2)})
    rewritten(path, lambda name, data: b"big" if name.endswith("/byteorder") else data)
    refused(path, "big-endian")


def test_a_large_index_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    save_with_trainer(path, {"a": torch.ones(2)})
    remembered_at = b"r" + (1 << 27).to_bytes(4, "little")  # LONG_BINPUT: a table of so many entries, 1 GB
    forged = b"\x80\x02cos\nsystem\n" + remembered_at + b"."
    rewritten(path, lambda name, data: forged if name.endswith("/data.pkl") else data)
    tracemalloc.start()
    try:
        refused(path, "no tensor")
        assert tracemalloc.get_traced_memory()[1] < 100e6
    finally:
        tracemalloc.stop()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_byte_array_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    save_with_trainer(path, {"a": torch.ones(2)})
    forged = b"\x80\x05cos\nsystem\n" + pickle.BYTEARRAY8 + (1 << 30).to_bytes(8, "little") + b"."
    rewritten(path, lambda name, data: forged if name.endswith("/data.pkl") else data)
    tracemalloc.start()
    try:
        refused(path, "a.ckpt")
        assert tracemalloc.get_traced_memory()[1] < 100e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "odd", [torch.ones(2).to_sparse(), torch.ones(2, device="meta"), torch.ones(2, dtype=torch.complex64)]
)
def test_what_is_no_plain_tensor_is_refused(tmp_path: Path, odd: Tensor) -> None:
    torch.save({"fine": torch.ones(2), "odd": odd}, tmp_path / "a.ckpt")
    refused(tmp_path / "a.ckpt", "plain tensors", "odd")


def test_the_same_numbers_many_times_over_are_refused(tmp_path: Path) -> None:
    values = torch.zeros(100_000)
    save_with_trainer(tmp_path / "tied.ckpt", {"a": values, "tied": values})
    assert len(read_checkpoint(tmp_path / "tied.ckpt")) == 2
    many = {str(index): values[index:] for index in range(50)}
    save_with_trainer(tmp_path / "many.ckpt", many)
    refused(tmp_path / "many.ckpt", "many times over")


def test_a_description_that_is_too_long_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint_files, "_PICKLE_LIMIT", 1000)
    save_with_trainer(tmp_path / "a.ckpt", {"a": torch.ones(2)}, notes="x" * 2000)
    refused(tmp_path / "a.ckpt", "too long")


class Block:
    """A block of the archive, as a forged pickle refers to it."""

    def __init__(self, count: int, key: str = "0") -> None:
        self.key, self.count = key, count


class Forged:
    """A tensor of any offset, size and stride in a block."""

    def __init__(self, block: Block, offset: Any, size: Any, stride: Any) -> None:
        self.arguments = (block, offset, size, stride, False, OrderedDict())

    def __reduce__(self) -> tuple[Any, ...]:
        return torch._utils._rebuild_tensor_v2, self.arguments


class Forger(pickle.Pickler):
    """Writes what torch.save would not."""

    def persistent_id(self, value: Any) -> Any:
        if isinstance(value, Block):
            return "storage", torch.FloatStorage, value.key, "cpu", value.count
        return None


def forge(path: Path, forged: Forged, data: bytes) -> None:
    trainer = trainers_object()
    pickled = io.BytesIO()
    Forger(pickled, protocol=2).dump({"callbacks": trainer, "state_dict": {"a": forged}})
    del sys.modules[type(trainer).__module__]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", pickled.getvalue())
        archive.writestr("a/data/0", data)
        archive.writestr("a/version", "3")


def test_a_forged_tensor_that_stays_in_its_block_is_taken(tmp_path: Path) -> None:
    values = torch.arange(12.0)
    forge(tmp_path / "a.ckpt", Forged(Block(12), 1, (2, 3), (4, 1)), values.numpy().tobytes())
    assert_same(read_checkpoint(tmp_path / "a.ckpt"), {"a": torch.tensor([[1.0, 2, 3], [5, 6, 7]])})


@pytest.mark.parametrize(
    ("forged", "reason"),
    [
        (Forged(Block(12), 0, (2, 3), (10, 1)), "larger than its storage"),
        (Forged(Block(12), 7, (2, 3), (3, 1)), "larger than its storage"),
        (Forged(Block(12), 0, (13,), (1,)), "larger than its storage"),
        (Forged(Block(12), 0, (1 << 40,), (0,)), "larger than its storage"),
        (Forged(Block(12), -1, (2,), (1,)), "impossible shape"),
        (Forged(Block(12), 11, (2,), (-1,)), "impossible shape"),
        (Forged(Block(12), 0, (-2,), (1,)), "impossible shape"),
        (Forged(Block(12), 0, (2, 3), (1,)), "impossible shape"),
        (Forged(Block(1 << 40), 0, (1 << 30,), (1,)), "another length than announced"),
        (Forged(Block(11), 0, (2,), (1,)), "another length than announced"),
        (Forged(Block(12, "9"), 0, (2,), (1,)), "data/9"),
        (Forged(Block(12, "../data.pkl"), 0, (2,), (1,)), "data.pkl"),
        (Forged(Block(12), "0", (2,), (1,)), "expected tensors that can be taken alone"),
        (Forged(Block(12), 0, 2, 1), "expected tensors that can be taken alone"),
    ],
)
def test_a_forged_tensor_beyond_its_block_is_refused(tmp_path: Path, forged: Forged, reason: str) -> None:
    forge(tmp_path / "a.ckpt", forged, torch.arange(12.0).numpy().tobytes())
    refused(tmp_path / "a.ckpt", reason)


@pytest.mark.filterwarnings(
    "ignore"
)  # a damaged file may call itself a TorchScript archive, which is a warning
@pytest.mark.parametrize("kind", ["archive", "with a trainer", "old format", "safetensors"])
def test_damage_of_any_kind_ends_in_tensors_or_one_line(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.ckpt"
    if kind == "safetensors":
        path.write_bytes(save({"a": torch.ones(5), "b": torch.ones(3)}))
    elif kind == "with a trainer":
        save_with_trainer(path, {"a": torch.ones(5), "b": torch.ones(3)})
    else:
        torch.save({"a": torch.ones(5)}, path, _use_new_zipfile_serialization=kind == "archive")
    whole = path.read_bytes()
    dice = random.Random(0)
    refusals = 0
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(dice.choice((1, 3, 30))):
            data[dice.randrange(len(data))] = dice.randrange(256)
        path.write_bytes(data[: dice.choice((len(data), dice.randrange(len(data))))])
        try:
            read_checkpoint(path)
        except WeightsError as error:
            assert "\n" not in str(error)
            refusals += 1
    assert refusals > 100
