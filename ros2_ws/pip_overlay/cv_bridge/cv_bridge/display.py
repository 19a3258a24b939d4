"""Any image as something a screen can show: upstream's cvtColorForDisplay."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cv_bridge.color import FILE_ENCODINGS, Image, cvtColor2, saturate_cast
from cv_bridge.encodings import Encoding, find_encoding

_BACKGROUND_LABEL = -1
# Label n is drawn in the n-th of the CSS colour names from A to Z, as six hex digits RRGGBB each. Upstream
# lacks paleturquoise by name and draws palevioletred in its colour.
_CSS_COLORS = (
    "f0f8fffaebd700ffff7fffd4f0fffff5f5dcffe4c4000000ffebcd0000ff8a2be2a52a2adeb8875f9ea07fff00d2691e"
    "ff7f506495edfff8dcdc143c00ffff00008b008b8bb8860ba9a9a9006400a9a9a9bdb76b8b008b556b2fff8c009932cc"
    "8b0000e9967a8fbc8f483d8b2f4f4f2f4f4f00ced19400d3ff149300bfff6969696969691e90ffb22222fffaf0228b22"
    "ff00ffdcdcdcf8f8ffffd700daa520808080008000adff2f808080f0fff0ff69b4cd5c5c4b0082fffff0f0e68ce6e6fa"
    "fff0f57cfc00fffacdadd8e6f08080e0fffffafad2d3d3d390ee90d3d3d3ffb6c1ffa07a20b2aa87cefa778899778899"
    "b0c4deffffe000ff0032cd32faf0e6ff00ff80000066cdaa0000cdba55d39370db3cb3717b68ee00fa9a48d1ccc71585"
    "191970f5fffaffe4e1ffe4b5ffdead000080fdf5e68080006b8e23ffa500ff4500da70d6eee8aa98fb98afeeeeffefd5"
    "ffdab9cd853fffc0cbdda0ddb0e0e6800080ff0000bc8f8f4169e18b4513fa8072f4a4602e8b57fff5eea0522dc0c0c0"
    "87ceeb6a5acd708090708090fffafa00ff7f4682b4d2b48c008080d8bfd8ff634740e0d0ee82eef5deb3fffffff5f5f5"
    "ffff009acd32"
)


def cvtColorForDisplay(  # noqa: N802
    source: Image,
    encoding_in: str,
    encoding_out: str,
    do_dynamic_scaling: bool = False,
    min_image_value: float = 0.0,
    max_image_value: float = 0.0,
) -> Image:
    """`source` as 8-bit mono or colour of `encoding_out` ("" = chosen here); labels (32SC1) to bgr8 get a
    colour each.

    With do_dynamic_scaling the image's own range, else [min_image_value, max_image_value] where the two
    differ, is stretched over 0 to 255; NaN is drawn black. Raises RuntimeError where that cannot be done.
    """
    given = find_encoding(encoding_in)
    shown = find_encoding(encoding_out or _choose_output(given))
    if shown.bits != 8 or shown.family is None or shown.family.startswith("bayer"):
        raise RuntimeError(f"cvtColorForDisplay needs an 8-bit color or mono output, not [{shown.name}]")
    if given.name == "32SC1" and shown.name == "bgr8":
        return _draw_labels(source)
    if do_dynamic_scaling:
        min_image_value, max_image_value = _value_range(source)
        if min_image_value == max_image_value:
            return np.full(
                (*source.shape[:2], shown.channels)[: 2 if shown.channels == 1 else 3], 128, np.uint8
            )
    if min_image_value != max_image_value:
        return _stretch(source, given, shown, min_image_value, max_image_value)
    guessed = FILE_ENCODINGS.get(given.name, given.name)
    try:
        return cvtColor2(source, guessed, shown.name)
    except RuntimeError as error:
        raise RuntimeError(
            f"cvtColorForDisplay cannot show [{given.name}] as [{shown.name}]: {error}"
        ) from error


def _choose_output(given: Encoding) -> str:
    if given.channels == 1 and given.name != "32SC1" and given.bits <= 32:
        return "mono8"
    if given.name == "32SC1" or given.bits <= 16:
        return "bgr8"
    raise RuntimeError(
        f"cvtColorForDisplay: the output encoding is empty and cannot be guessed for [{given.name}]"
    )


def _value_range(image: Image) -> tuple[float, float]:
    seen = image[~np.isnan(image)]
    return (float(seen.min()), float(seen.max())) if seen.size else (0.0, 0.0)


def _stretch(image: Image, given: Encoding, shown: Encoding, low: float, high: float) -> Image:
    if given.channels != 1:
        raise RuntimeError("cvtColorForDisplay: scaling for images with more than one channel is unsupported")
    grey = saturate_cast((image.astype(np.float64) - low) * (255.0 / (high - low)), "uint8")
    return cvtColor2(grey, "mono8", shown.name)


def _draw_labels(labels: Image) -> Image:
    """labels [H, W] int32 to [H, W, 3] uint8 BGR."""
    palette = _label_colors()
    drawn: Image = palette[labels.reshape(labels.shape[:2]) % len(palette)]
    drawn[labels.reshape(labels.shape[:2]) == _BACKGROUND_LABEL] = 0
    return drawn


def _label_colors() -> npt.NDArray[np.uint8]:
    """[146, 3] uint8 BGR. Upstream keeps them as fractions of three digits and cuts the rest off, hence one
    off here."""
    rgb = np.frombuffer(bytes.fromhex(_CSS_COLORS), np.uint8).reshape(-1, 3)
    cut = [[int(float(f"{value / 255:.3g}") * 255) for value in color] for color in rgb]
    return np.array(cut, np.uint8)[:, ::-1].copy()
