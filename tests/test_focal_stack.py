"""Stacks: what is read from folders and manifests, and that whatever is no stack is refused in one line."""

import os
import struct
import zlib
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hybriddepth_ros import focal_stack, image_files
from hybriddepth_ros.errors import OutputError, StackError
from hybriddepth_ros.focal_stack import CameraIntrinsics, FocalSlice, FocalStack
from hybriddepth_ros.optics import ThinLens
from tests.conftest import shared_path

HEIGHT, WIDTH = 12, 16
NAN, INF = float("nan"), float("inf")


def picture(seed: int = 0, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def write_image(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(image, path.suffix))


def encoded(image: np.ndarray, suffix: str = ".png") -> bytes:
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return cv2.imencode(suffix, image)[1].tobytes()


def folder_of(path: Path, *names: str) -> Path:
    """A folder with one picture per name."""
    path.mkdir(exist_ok=True)
    for index, name in enumerate(names):
        write_image(path / name, picture(index))
    return path


def manifest_of(path: Path, document: object) -> Path:
    """A manifest beside two pictures, 0.png and 1.png."""
    folder_of(path, "0.png", "1.png")
    text = document if isinstance(document, str) else yaml.safe_dump(document)
    (path / "stack.yaml").write_text(text)
    return path / "stack.yaml"


def two_slices(**changes: object) -> dict:
    """A good manifest; `changes` apply to the second slice."""
    return {
        "slices": [
            {"image": "0.png", "focus_diopters": 0.5},
            {"image": "1.png", "focus_diopters": 2.0, **changes},
        ]
    }


def refusal(read: object, path: Path) -> str:
    """The one line with which `read` refuses `path`."""
    with pytest.raises(StackError) as caught:
        read(path)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 600
    return message


# -- folders


def test_a_folder_is_read_in_the_natural_order_of_its_names(tmp_path: Path) -> None:
    names = [
        "image_10_0.50.jpg",
        "image_2_0.9.PNG",
        "image_1_2.webp",
        "image_11-.25.bmp",
        "image_12_inf.TIFF",
    ]
    folder_of(tmp_path / "desk", *names)
    stack = FocalStack.from_folder(tmp_path / "desk")
    assert stack.name == "desk" and stack.camera is None and stack.lens is None
    np.testing.assert_allclose(stack.focus_diopters, [1 / 2, 1 / 0.9, 1 / 0.5, 1 / 0.25, 0.0], rtol=1e-6)
    np.testing.assert_array_equal(stack.slices[1].image, picture(1))
    np.testing.assert_array_equal(stack.slices[4].image, picture(4))


def test_other_files_and_hidden_ones_are_ignored(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "a_0.5.png", "a_1.png", ".a_2.png")
    (folder / "depth_3.npy").write_bytes(b"")
    (folder / "README.md").write_text("read me")
    (folder / "thumbnails_4.png").mkdir()
    assert len(FocalStack.from_folder(folder).slices) == 2


@given(st.floats(0.01, 99.0), st.sampled_from("_-"), st.sampled_from(["image", "image_3", "a-b_1"]))
def test_the_name_ends_in_the_distance_in_metres(metres: float, separator: str, prefix: str) -> None:
    name = Path(f"{prefix}{separator}{metres:.6f}.jpg")
    assert focal_stack._distance_in_name(name) == pytest.approx(metres, abs=1e-6)


@pytest.mark.parametrize(
    "name", ["frame_0001.png", "IMG.png", "0.90.png", "image0.90.png", "a_0.9m.png", "a_x.png"]
)
def test_names_without_a_distance_are_refused_with_an_example(tmp_path: Path, name: str) -> None:
    message = refusal(FocalStack.from_folder, folder_of(tmp_path, name))
    assert name in message and "focus distance in metres (image_3_0.90.jpg" in message


def test_one_name_without_a_distance_refuses_the_stack_rather_than_losing_a_slice(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "a_0.5.png", "a_1.png", "extra.png")
    assert "extra.png: expected a name that ends in" in refusal(FocalStack.from_folder, folder)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("a_-0.5.png", "-0.5"),
        ("a--0.5.png", "-0.5"),
        ("-0.5.png", "-0.5"),
        ("a_0.png", "0"),
        ("a_0.00.png", "0.00"),
        ("a_nan.png", "nan"),
        ("a_-inf.png", "-inf"),
    ],
)
def test_a_distance_that_is_none_is_refused(tmp_path: Path, name: str, value: str) -> None:
    message = refusal(FocalStack.from_folder, folder_of(tmp_path, "b_1.png", name))
    assert message.endswith(f"{name}: expected a focus distance above 0 m, or inf, got {value}")


def test_a_distance_with_an_exponent_is_not_taken_for_its_last_digit(tmp_path: Path) -> None:
    stack = FocalStack.from_folder(folder_of(tmp_path, "a_5e-1.png", "b_1.png"))
    np.testing.assert_allclose(stack.focus_diopters, [2.0, 1.0])


def test_equal_distances_are_refused_with_both_names(tmp_path: Path) -> None:
    message = refusal(FocalStack.from_folder, folder_of(tmp_path, "a_0.5.png", "b_1.png", "c_0.50.png"))
    assert "c_0.50.png: expected another focus than" in message and "a_0.5.png" in message


def test_a_distance_nearer_than_any_lens_is_refused(tmp_path: Path) -> None:
    message = refusal(FocalStack.from_folder, folder_of(tmp_path, "a_0.001.png", "b_1.png"))
    assert "a_0.001.png: expected a focus of -1 to 100 1/m, got 1000" in message


def test_folders_that_hold_no_stack_are_refused(tmp_path: Path) -> None:
    assert "missing: expected a folder" in refusal(FocalStack.from_folder, tmp_path / "missing")
    assert "found none" in refusal(FocalStack.from_folder, folder_of(tmp_path / "empty"))
    one = folder_of(tmp_path / "one", "a_1.png")
    assert refusal(FocalStack.from_folder, one) == f"{one}: expected at least 2 slices, got 1"
    assert "found a file" in refusal(FocalStack.from_folder, one / "a_1.png")
    assert "stack.yaml: expected at least 2" in refusal(FocalStack.load, folder_of(tmp_path / "stack.yaml"))


def test_a_folder_that_cannot_be_listed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    message = refusal(FocalStack.from_folder, tmp_path)
    assert message == f"{tmp_path}: expected a folder that can be read: Permission denied"


def test_sizes_that_differ_are_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "a_0.5.png", "b_1.png")
    write_image(folder / "c_2.png", picture(height=HEIGHT + 1))
    message = refusal(FocalStack.from_folder, folder)
    assert "c_2.png: expected the size of" in message and message.endswith("16x12, got 16x13")


# -- images


@pytest.mark.parametrize("kind", ["empty", "text", "cut png", "cut jpg", "jpg cut at its end", "damaged png"])
def test_an_unreadable_image_is_refused_and_nothing_else_is_printed(
    tmp_path: Path, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    png, jpg = encoded(picture()), encoded(picture(0, 64, 64), ".jpg")
    data = {
        "empty": b"",
        "text": b"no image",
        "cut png": png[: len(png) // 2],
        "cut jpg": jpg[: len(jpg) // 2],
        "jpg cut at its end": jpg[:-2],
        "damaged png": png[:60] + b"????" + png[64:],
    }[kind]
    folder = folder_of(tmp_path, "a_0.5.png")
    (folder / f"b_1.{kind[-3:] if kind.startswith('cut') else 'png'}").write_bytes(data)
    message = refusal(FocalStack.from_folder, folder)
    assert f"{folder}/b_1." in message and message.endswith("expected an image, could not decode it")
    assert capfd.readouterr() == ("", "")


def png_claiming(width: int, height: int) -> bytes:
    """A whole PNG, as far as its chunks and checksums go, without pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", b""), (b"IEND", b""))
    chunks = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def jpg_claiming(width: int, height: int) -> bytes:
    data = bytearray(encoded(picture(), ".jpg"))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(data[:2] + b"\xff\xff" + data[2:])  # padded before the first marker, as the standard allows


CLAIMING = {
    "png": png_claiming,
    "jpg": jpg_claiming,
    "bmp": lambda width, height: b"BM" + bytes(12) + struct.pack("<Iii", 40, width, -height) + bytes(40),
    "webp": lambda width, height: (
        b"RIFF\x30\0\0\0WEBPVP8X\x0a\0\0\0" + bytes(4)
        + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little") + bytes(20)
    ),
}  # fmt: skip


@pytest.mark.parametrize("suffix", CLAIMING)
def test_an_image_that_claims_more_pixels_than_any_camera_is_refused_undecoded(
    tmp_path: Path, suffix: str
) -> None:
    folder = folder_of(tmp_path, "a_0.5.png")
    (folder / f"b_1.{suffix}").write_bytes(CLAIMING[suffix](60000, 50000))
    message = refusal(FocalStack.from_folder, folder)
    assert message.endswith("expected an image of at most 100 megapixels, got 60000x50000")


def test_a_format_whose_header_is_not_read_is_refused_by_its_decoded_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_of(tmp_path, "a_0.5.tif", "b_1.tif")
    monkeypatch.setattr(image_files, "MAX_IMAGE_PIXELS", HEIGHT * WIDTH - 1)
    assert "a_0.5.tif: expected an image of at most" in refusal(FocalStack.from_folder, folder)


def test_ordinary_headers_pass(tmp_path: Path) -> None:
    padded = jpg_claiming(WIDTH, HEIGHT)
    os2 = b"BM" + struct.pack("<IIIIHHHH", 14 + 12 + 48, 0, 26, 12, 4, 4, 1, 24) + bytes(range(48))
    for name, data in (("a_0.5.jpg", padded), ("b_1.bmp", os2)):
        (tmp_path / name).write_bytes(data)
    message = refusal(FocalStack.from_folder, tmp_path)
    assert message.endswith("16x12, got 4x4")  # both were decoded


@pytest.mark.parametrize(
    "module, limit", [(image_files, "MAX_FILE_BYTES"), (focal_stack, "MAX_MANIFEST_BYTES")]
)
def test_a_file_beyond_all_size_is_refused_unread(
    tmp_path: Path, module: ModuleType, limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = manifest_of(tmp_path, two_slices())
    monkeypatch.setattr(module, limit, 20)
    assert f"{tmp_path}/" in (message := refusal(FocalStack.load, path))
    assert message.endswith("expected at most 0 MiB")


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_are_scaled_and_grey_becomes_rgb(tmp_path: Path, suffix: str) -> None:
    grey = (np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) * 340).astype(np.uint16)
    folder = folder_of(tmp_path, "a_0.5.png")
    (folder / f"b_1{suffix}").write_bytes(encoded(grey, suffix))
    image = FocalStack.from_folder(folder).slices[1].image
    assert image.dtype == np.uint8 and image.shape == (HEIGHT, WIDTH, 3) and image.flags.c_contiguous
    np.testing.assert_array_equal(image, np.repeat((grey >> 8)[..., None], 3, -1))


def test_alpha_is_dropped(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "a_0.5.png")
    bgra = cv2.cvtColor(picture(1), cv2.COLOR_RGB2BGRA)
    bgra[..., 3] = 7
    (folder / "b_1.png").write_bytes(cv2.imencode(".png", bgra)[1].tobytes())
    np.testing.assert_array_equal(FocalStack.from_folder(folder).slices[1].image, picture(1))


def test_images_stand_as_their_exif_orientation_says(tmp_path: Path) -> None:
    plain = encoded(picture(), ".jpg")
    orientation = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)  # 6: the camera was held upright
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1) + orientation + struct.pack("<I", 0)
    tagged = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + plain[2:]
    for name, data in (("a_0.5.jpg", tagged), ("b_1.jpg", tagged)):
        (tmp_path / name).write_bytes(data)
    image = FocalStack.from_folder(tmp_path).slices[0].image
    upright = cv2.cvtColor(cv2.imdecode(np.frombuffer(plain, np.uint8), 1), cv2.COLOR_BGR2RGB)
    np.testing.assert_array_equal(image, np.rot90(upright, -1))


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "a_0.5.png")
    os.mkfifo(folder / "b_1.png")
    assert "b_1.png: expected a regular file" in refusal(FocalStack.from_folder, folder)


def test_a_broken_link_is_refused_and_not_dropped(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "a_0.5.png", "b_1.png")
    (folder / "c_2.png").symlink_to(folder / "gone.png")
    assert "c_2.png: expected a file that can be read" in refusal(FocalStack.from_folder, folder)


# -- manifests


def test_a_manifest_is_read_in_the_order_of_its_list(tmp_path: Path) -> None:
    document = {
        "slices": [
            {"image": "1.png", "focus_diopters": 2, "stamp_ns": 1_700_000_000_123_456_789},
            {"image": "0.png", "focus_diopters": -0.1},
        ],
        "camera": {"fx": 20, "fy": 21.0, "cx": 8.5, "cy": 6.0, "distortion": [0.1, 0, 0, 0, 0]},
        "lens": {"focal_length_mm": 6.81, "f_number": 1.85, "pixel_pitch_um": 3.8},
    }
    path = manifest_of(tmp_path / "room", document)
    for stack in (FocalStack.from_manifest(path), FocalStack.load(path), FocalStack.load(path.parent)):
        np.testing.assert_array_equal(stack.slices[0].image, picture(1))
        assert [s.focus_diopters for s in stack.slices] == [2, -0.1]
        assert [s.stamp_ns for s in stack.slices] == [1_700_000_000_123_456_789, 0]
        assert stack.camera == CameraIntrinsics(20, 21, 8.5, 6, WIDTH, HEIGHT, (0.1, 0, 0, 0, 0))
        assert stack.lens == ThinLens(6.81, 1.85, 3.8)
        assert stack.name == "room"


def test_a_manifest_rules_over_the_names_in_its_folder(tmp_path: Path) -> None:
    manifest_of(tmp_path, two_slices())
    folder_of(tmp_path, "a_0.1.png", "b_0.2.png", "without a distance.png")
    np.testing.assert_allclose(FocalStack.from_folder(tmp_path).focus_diopters, [0.5, 2.0])


def test_a_manifest_may_name_images_in_a_folder_below_its_own(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "b.png", picture(1))
    assert len(FocalStack.load(manifest_of(tmp_path, two_slices(image="images/b.png"))).slices) == 2


@pytest.mark.parametrize(
    "name", ["../secret.png", "/etc/hostname", "images/../../secret.png", "link.png", "linked/s.png"]
)
def test_a_manifest_cannot_leave_its_folder(tmp_path: Path, name: str) -> None:
    write_image(tmp_path / "secret.png", picture())
    write_image(tmp_path / "elsewhere" / "s.png", picture())
    path = manifest_of(tmp_path / "stack", two_slices(image=name))
    (path.parent / "images").mkdir()
    (path.parent / "link.png").symlink_to(tmp_path / "secret.png")
    (path.parent / "linked").symlink_to(tmp_path / "elsewhere")
    message = refusal(FocalStack.from_manifest, path)
    assert message == f"{path}: slices[1]: image: expected a file in the manifest's folder, got {name!r}"


def test_a_manifest_cannot_name_a_file_in_its_folder_by_an_absolute_path(tmp_path: Path) -> None:
    path = manifest_of(tmp_path, two_slices(image=str(tmp_path / "1.png")))
    assert "expected a file in the manifest's folder" in refusal(FocalStack.load, path)


LINES_OF_BAD_MANIFESTS = {
    "not yaml": ("slices: [{", "expected YAML at line 1: "),
    "binary": ("\x01\x02", "expected YAML"),
    "a bad date": ("slices: 2020-99-99", "expected YAML"),
    "too deep": ("[" * 5000, "expected YAML"),
    "empty": ("", "expected slices, camera, lens, got None"),
    "a list": ([1, 2], "expected slices, camera, lens, got [1, 2]"),
    "a text": ("focus", "expected slices, camera, lens, got 'focus'"),
    "no slices": ({"lens": {}}, "expected slices, which is missing"),
    "slices is no list": ({"slices": {"image": "0.png"}}, "slices: expected a list"),
    "no slice": ({"slices": []}, "slices: expected at least 2 slices, got 0"),
    "one slice": ({"slices": two_slices()["slices"][:1]}, "slices: expected at least 2 slices, got 1"),
    "a misspelt key": ({"slice": []}, "unknown key 'slice'; did you mean slices?"),
    "a misspelt slice key": (two_slices(focus_diopter=2), "did you mean focus_diopters?"),
    "a key that is no text": ({**two_slices(), 7: 1}, "unknown key 7"),
    "a slice that is a name": ({"slices": ["0.png", "1.png"]}, "slices[0]: expected image, focus_diopters"),
    "no focus": ({"slices": [{"image": "0.png"}] * 2}, "slices[0]: expected focus_diopters, which"),
    "a missing image": (two_slices(image="9.png"), "9.png: expected a file that can be read"),
    "the folder as image": (two_slices(image="."), "expected a regular file"),
    "a number as image": (two_slices(image=1), "slices[1]: image: expected a file name, got 1"),
    "NUL in a name": (two_slices(image="a\0b"), "expected a file in the manifest's folder"),
    "a name beyond all length": (two_slices(image="a" * 5000), "slices[1]: image: expected"),
    "NaN focus": (two_slices(focus_diopters=NAN), "focus_diopters: expected a finite number, got nan"),
    "infinite focus": (two_slices(focus_diopters=INF), "expected a finite number, got inf"),
    "a text as focus": (two_slices(focus_diopters="near"), "expected a finite number, got 'near'"),
    "a truth as focus": (two_slices(focus_diopters=True), "expected a finite number, got True"),
    "a focus beyond numbers": (two_slices(focus_diopters=10**400), "focus_diopters: expected a finite"),
    "a very negative focus": (two_slices(focus_diopters=-2.0), "expected a focus of -1 to 100 1/m, got -2"),
    "equal focus": (two_slices(focus_diopters=0.5), "1.png: expected another focus than"),
    "a text as stamp": (two_slices(stamp_ns="now"), "slices[1]: stamp_ns: expected a finite number"),
    "a lens in part": ({**two_slices(), "lens": {"f_number": 2}}, "lens: expected focal_length_mm, which is"),
    "a lens of no length": (
        {**two_slices(), "lens": {"focal_length_mm": 0, "f_number": 2, "pixel_pitch_um": 1}},
        "lens: lens.focal_length_mm: expected a finite number above 0, got 0",
    ),
    "a camera in part": ({**two_slices(), "camera": {"fx": 9}}, "camera: expected fy, which is missing"),
    "a camera of no focal length": (
        {**two_slices(), "camera": {"fx": 0, "fy": 9, "cx": 8, "cy": 6}},
        "camera: fx: expected a finite number above 0, got 0",
    ),
    "a camera of another size": (
        {**two_slices(), "camera": {"fx": 9, "fy": 9, "cx": 640, "cy": 6}},
        "camera: cx: expected 0 to 16 px, inside the image, got 640",
    ),
    "a distortion that is no list": (
        {**two_slices(), "camera": {"fx": 9, "fy": 9, "cx": 8, "cy": 6, "distortion": 0.1}},
        "camera: distortion: expected a list, got 0.1",
    ),
    "a distortion of another model": (
        {**two_slices(), "camera": {"fx": 9, "fy": 9, "cx": 8, "cy": 6, "distortion": [0.1, 0.2]}},
        "camera: distortion: expected 5 numbers (plumb_bob) or none, got 2",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", LINES_OF_BAD_MANIFESTS)
def test_a_bad_manifest_is_refused_in_one_line(tmp_path: Path, case: str) -> None:
    document, expected = LINES_OF_BAD_MANIFESTS[case]
    path = manifest_of(tmp_path, document)
    message = refusal(FocalStack.load, path)
    assert message.startswith(str(tmp_path)) and expected in message


def test_a_missing_manifest_is_refused(tmp_path: Path) -> None:
    assert "stack.yaml: expected a file that can be read" in refusal(FocalStack.load, tmp_path / "stack.yaml")


def test_a_manifest_that_would_unfold_to_billions_is_refused_shortly(tmp_path: Path) -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [
        f"{new}: &{new} [{', '.join(['*' + old] * 9)}]"
        for old, new in zip("abcdefgh", "bcdefghi", strict=True)
    ]
    bomb = "slices:\n- image: *i\n  focus_diopters: 1\n- image: *i\n  focus_diopters: 2\n"
    assert "unknown key 'a'" in refusal(
        FocalStack.load, manifest_of(tmp_path / "keys", "\n".join(lines) + "\n" + bomb)
    )
    nested = "slices:\n- image: 0.png\n  focus_diopters:\n" + "".join(f"  - {line[3:]}\n" for line in lines)
    nested += "- {image: 1.png, focus_diopters: 2}\n"
    assert "focus_diopters: expected a finite number" in refusal(
        FocalStack.load, manifest_of(tmp_path / "n", nested)
    )


# -- stacks made in memory


def slices(*focus: float) -> tuple[FocalSlice, ...]:
    return tuple(FocalSlice(picture(index), value) for index, value in enumerate(focus))


@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        ((), "desk: expected at least 2 slices, got 0"),
        (slices(1.0), "desk: expected at least 2 slices, got 1"),
        (slices(1.0, NAN), "desk: slice 1: expected a focus of -1 to 100 1/m, got nan"),
        (slices(1.0, INF), "desk: slice 1: expected a focus of -1 to 100 1/m, got inf"),
        (slices(1.0, 2.0, 1.0), "slice 2: expected another focus than desk: slice 0, got 1 1/m"),
        ((*slices(1.0), FocalSlice(picture()[..., :1], 2.0)), "slice 1: expected a uint8 image [H, W, 3]"),
        ((*slices(1.0), FocalSlice(picture()[..., 0], 2.0)), "slice 1: expected a uint8 image [H, W, 3]"),
        ((*slices(1.0), FocalSlice(picture()[:0], 2.0)), "slice 1: expected a uint8 image [H, W, 3]"),
        ((*slices(1.0), FocalSlice(picture() / np.float32(255), 2.0)), "got float32 [12, 16, 3]"),
        ((*slices(1.0), FocalSlice(picture()[..., ::-1], 2.0)), "slice 1: expected a contiguous image"),
        ((*slices(1.0), FocalSlice(picture(0, 13), 2.0)), "the size of desk: slice 0, 16x12, got 16x13"),
        (
            (*slices(1.0), FocalSlice(picture(), 2.0, camera=CameraIntrinsics(9, 9, 8, 6, 640, 480))),
            "slice 1: camera: expected intrinsics for the image size 16x12, got 640x480",
        ),
    ],
)  # fmt: skip
def test_slices_that_make_no_stack_are_refused(bad: tuple[FocalSlice, ...], expected: str) -> None:
    with pytest.raises(StackError) as caught:
        FocalStack(bad, name="desk")
    assert expected in str(caught.value) and "\n" not in str(caught.value)


def test_a_stack_refuses_intrinsics_of_another_size() -> None:
    with pytest.raises(
        StackError, match="stack: camera: expected intrinsics for the image size 16x12, got 64x48"
    ):
        FocalStack(slices(1.0, 2.0), CameraIntrinsics(9, 9, 8, 6, 64, 48))


def test_focus_slightly_beyond_infinity_is_welcome_and_order_is_kept() -> None:
    stack = FocalStack(slices(2.0, -0.2, 1.0))
    assert stack.focus_diopters.dtype == np.float32
    np.testing.assert_allclose(stack.focus_diopters, [2.0, -0.2, 1.0])


@pytest.mark.parametrize("name", ["fx", "fy", "width", "height"])
def test_intrinsics_that_cannot_be_are_refused_by_name(name: str) -> None:
    values = {"fx": 9.0, "fy": 9.0, "cx": 8.0, "cy": 6.0, "width": 16, "height": 12}
    for bad in (0, -1, NAN, INF):
        with pytest.raises(StackError, match=f"^camera: {name}: expected a finite number above 0"):
            CameraIntrinsics(**{**values, name: bad})
    with pytest.raises(StackError, match="camera: cx, cy, distortion: expected finite numbers"):
        CameraIntrinsics(**{**values, "cx": NAN})


# -- round trips and real stacks


def test_a_written_stack_reads_back_as_it_was(tmp_path: Path) -> None:
    stack = FocalStack(
        tuple(FocalSlice(picture(i), 0.1 + i / 3, 10**18 + i) for i in range(12)),
        CameraIntrinsics(20.125, 21.0, 8.0, 6.0, WIDTH, HEIGHT, (0.1, 0.0, 1e-5, 0.0, 0.0)),
        ThinLens(6.81, 1.85, 3.8),
        "desk",
    )
    manifest = stack.write_folder(tmp_path / "out" / "desk")
    back = FocalStack.load(manifest)
    assert (back.camera, back.lens, back.name) == (stack.camera, stack.lens, stack.name)
    for one, other in zip(stack.slices, back.slices, strict=True):
        np.testing.assert_array_equal(one.image, other.image)
        assert (one.focus_diopters, one.stamp_ns) == (other.focus_diopters, other.stamp_ns)


def test_a_stack_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="expected a folder that can be written"):
        FocalStack(slices(1.0, 2.0)).write_folder(tmp_path / "file" / "stack")


@pytest.mark.parametrize(
    ("name", "metres"),
    [("phone_room", [0.35, 0.50, 0.90, 1.33, 2.21]), ("phone_desk", [0.24, 0.36, 0.6, 1.5, 2.5])],
)
def test_real_phone_stacks_are_read_with_their_focus(name: str, metres: list[float]) -> None:
    stack = FocalStack.load(shared_path(f"data/stacks/{name}"))
    assert stack.name == name and stack.slices[0].image.shape == (964, 1280, 3)
    np.testing.assert_allclose(1.0 / stack.focus_diopters, metres, rtol=1e-6)
