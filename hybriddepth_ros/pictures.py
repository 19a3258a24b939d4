"""Pictures of depth, sigma and error: a colour per value, a scale in metres, hatching for "no estimate".

Colours are even in diopters for depth (so that a focus cue's error looks alike near and far) and even in the
logarithm for sigma, which spans decades. Nothing here needs a display; matplotlib is imported on demand.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from hybriddepth_ros.image_files import ImageRGB

if TYPE_CHECKING:
    from hybriddepth_ros.evaluation.metrics import DistanceBin

Values = npt.NDArray[np.floating]

HATCH_LIGHT, HATCH_DARK = 176, 152  # greys that no colour map below contains
_HATCH_PERIOD_PX = 8
_INK = "#24292f"


@dataclass(frozen=True)
class Scale:
    """How values become colours; `spacing`: colours are even in the value, in 1/value or in its logarithm."""

    low: float
    high: float
    colours: str = "viridis"
    unit: str = "m"
    spacing: Literal["linear", "diopters", "log"] = "linear"

    def position(self, values: Values) -> Values:
        """0 at `low` .. 1 at `high`, clipped; NaN stays NaN."""
        low, high = self._even(np.array([self.low, self.high]))
        return np.clip((self._even(values) - low) / (high - low), 0.0, 1.0)

    def value(self, position: Values) -> Values:
        """The inverse of `position`."""
        low, high = self._even(np.array([self.low, self.high]))
        even = low + position * (high - low)
        if self.spacing == "log":
            return np.exp(even)
        return 1.0 / even if self.spacing == "diopters" else even

    def _even(self, values: Values) -> Values:
        with np.errstate(divide="ignore", invalid="ignore"):
            if self.spacing == "log":
                return np.log(values)
            return 1.0 / values if self.spacing == "diopters" else values


def depth_scale(*depths: Values) -> Scale:
    """One scale for all given depths [m]: 1st to 99th percentile of what is known."""
    known = np.concatenate([d[np.isfinite(d) & (d > 0)].ravel() for d in depths])
    low, high = _limits(known, default=(0.5, 5.0))
    return Scale(low, high, "viridis_r", spacing="diopters")


def sigma_scale(*sigmas: Values) -> Scale:
    """One for all; logarithmic, since sigma [m] spans decades: it grows with the square of the depth."""
    known = np.concatenate([s[np.isfinite(s) & (s > 0)].ravel() for s in sigmas])
    low, high = _limits(known, default=(0.001, 0.1))
    return Scale(low, max(high, 2.0 * low), "magma", spacing="log")


def relative_error_scale(limit: float = 0.10) -> Scale:
    """Signed relative error, blue = estimated too near, red = too far."""
    return Scale(-100.0 * limit, 100.0 * limit, "RdBu_r", "%")


def _limits(known: Values, default: tuple[float, float]) -> tuple[float, float]:
    if not known.size:
        return default
    low, high = float(np.percentile(known, 1)), float(np.percentile(known, 99))
    return (low, high) if high > low else (low, low + max(1e-3, abs(low) * 0.01))


def colourise(values: Values, scale: Scale) -> ImageRGB:
    """[H, W] values -> [H, W, 3] RGB; NaN becomes grey diagonal hatching."""
    import matplotlib

    table = matplotlib.colormaps[scale.colours](np.linspace(0, 1, 256), bytes=True)[:, :3]
    position = scale.position(values)
    missing = ~np.isfinite(values)
    index = np.where(missing, 0, np.nan_to_num(position) * 255).astype(np.uint8)
    picture = table[index]  # [H, W, 3]
    diagonal = np.add.outer(np.arange(values.shape[0]), np.arange(values.shape[1]))  # [H, W]
    stripe = diagonal % _HATCH_PERIOD_PX < _HATCH_PERIOD_PX // 2
    picture[missing] = np.where(stripe, HATCH_LIGHT, HATCH_DARK)[missing][:, None]
    return np.ascontiguousarray(picture)


@dataclass(frozen=True)
class Panel:
    """One picture of a figure: an RGB image [H, W, 3], or values [H, W] with their scale.

    hatched: what it means that there is no value.
    """

    title: str
    content: npt.NDArray[Any]
    scale: Scale | None = None
    hatched: str = "no estimate"


def depth_panel(title: str, depth: Values, scale: Scale | None = None, hatched: str = "no estimate") -> Panel:
    """Depth [m]; pass one `depth_scale` to panels that are to be compared."""
    return Panel(title, depth, scale or depth_scale(depth), hatched)


def sigma_panel(title: str, sigma: Values, scale: Scale | None = None) -> Panel:
    """1 sigma [m], or the size of an error on the scale of its sigma."""
    return Panel(title, sigma, scale or sigma_scale(sigma))


def error_scale(*relative: Values) -> Scale:
    """One scale for all given relative errors (ratios); it reaches as far as nine of ten pixels do."""
    known = np.concatenate([np.abs(r[np.isfinite(r)]).ravel() for r in relative])
    limit = float(np.percentile(known, 90)) if known.size else 0.1
    return relative_error_scale(max(limit, 0.005))


def error_panel(title: str, relative: Values, scale: Scale | None = None) -> Panel:
    """Signed relative error, given as a ratio; pass one `error_scale` to panels that are to be compared."""
    return Panel(title, 100.0 * relative, scale or error_scale(relative), "no estimate or no truth")


def draw_panels(
    panels: Sequence[Panel | None], title: str = "", columns: int = 2, width_in: float = 5.2
) -> bytes:
    """PNG of the panels in rows, each with its legend below; `width_in` inches each at 110 dots per inch.

    None leaves a place empty.
    """
    from matplotlib.figure import Figure

    height, width = next(panel.content.shape[:2] for panel in panels if panel is not None)
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    picture_in, bar_in = width_in * height / width, 0.12
    figure = Figure(figsize=(columns * width_in, rows * (picture_in + 0.85) + (0.4 if title else 0)), dpi=110)
    figure.set_layout_engine("constrained", wspace=0.04)
    if title:
        figure.suptitle(title, color=_INK, fontsize=12)
    grid = figure.add_gridspec(2 * rows, columns, height_ratios=[picture_in, bar_in] * rows)
    for i, panel in enumerate(panels):
        if panel is None:
            continue
        row, column = divmod(i, columns)
        axis = figure.add_subplot(grid[2 * row, column])
        axis.set_title(panel.title, color=_INK, fontsize=10)
        axis.set_axis_off()
        if panel.scale is None:
            axis.imshow(panel.content)
            continue
        axis.imshow(colourise(panel.content, panel.scale))
        missing = 1.0 - float(np.mean(np.isfinite(panel.content)))
        note = f"    (hatched: {panel.hatched}, {missing:.1%})" if missing > 0 else ""
        _draw_legend(figure.add_subplot(grid[2 * row + 1, column]), panel.scale, note)
    return png(figure)


def _draw_legend(axis: Any, scale: Scale, note: str) -> None:
    """A bar whose colours are even, as in the picture, with round values as ticks."""
    bar = colourise(scale.value(np.linspace(0, 1, 512))[None], scale)  # [1, 512, 3]
    axis.imshow(bar, aspect="auto", extent=(0, 1, 0, 1))
    ticks = round_ticks(scale)
    axis.set_xticks([float(scale.position(np.array(t))) for t in ticks], [f"{t:g}" for t in ticks])
    axis.set_yticks([])
    axis.set_xlabel(scale.unit + note, fontsize=8, color=_INK)
    axis.tick_params(labelsize=8, colors=_INK)
    axis.spines[:].set_visible(False)


def round_ticks(scale: Scale, spacing: float = 0.09) -> list[float]:
    """Round values inside the scale, no two nearer than `spacing` of the bar's length; the roundest first."""
    kept: list[float] = []
    top = int(np.ceil(np.log10(max(abs(scale.low), abs(scale.high)))))
    for step in (
        10.0**exponent * factor for exponent in range(top, top - 4, -1) for factor in (1.0, 0.5, 0.2)
    ):
        first = np.ceil(scale.low / step)
        last = min(np.floor(scale.high / step), first + 60)
        for tick in (float(f"{n * step:.6g}") + 0.0 for n in np.arange(first, last + 1)):
            place = scale.position(np.array(tick))
            if all(abs(place - scale.position(np.array(k))) >= spacing for k in kept):
                kept.append(tick)
    return sorted(kept)


def draw_error_by_distance(bins: Sequence[DistanceBin]) -> bytes:
    """PNG: error (16..84 % band) beside sigma over true distance, and the share that was estimated there."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.4, 3.6), dpi=110)
    figure.set_layout_engine("constrained")
    error_axis, share_axis = figure.subplots(1, 2, gridspec_kw={"width_ratios": [3, 2]})
    centres = [2.0 / (1.0 / b.near + 1.0 / b.far) for b in bins]
    sigma = np.array([b.median_sigma for b in bins])
    error_axis.axhline(0, color="#8c959f", lw=0.8)
    error_axis.fill_between(
        centres,
        [100 * b.band_low for b in bins],
        [100 * b.band_high for b in bins],
        color="#4c8bf5",
        alpha=0.35,
        lw=0,
        label="68 % of the errors",
    )
    error_axis.plot(centres, 100 * sigma, color="#d1495b", lw=1.6, label="± sigma, as estimated (median)")
    error_axis.plot(centres, -100 * sigma, color="#d1495b", lw=1.6)
    error_axis.set_xlabel("true distance [m]")
    error_axis.set_ylabel("estimate - truth [cm]")
    error_axis.legend(frameon=False, fontsize=8)
    valid, covered = [100 * b.valid_share for b in bins], [100 * b.coverage for b in bins]
    share_axis.plot(centres, valid, "o-", color="#2a9d8f", ms=4, label="estimated")
    share_axis.plot(centres, covered, "s-", color="#d1495b", ms=4, label="within 1 sigma")
    share_axis.axhline(68.3, color="#d1495b", lw=0.8, ls=":")
    share_axis.set_ylim(0, 103)
    share_axis.set_xlabel("true distance [m]")
    share_axis.set_ylabel("share of pixels [%]")
    share_axis.legend(frameon=False, fontsize=8)
    for axis in (error_axis, share_axis):
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
    return png(figure)


def png(figure: Any) -> bytes:
    """A matplotlib figure as a file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor="white")
    return buffer.getvalue()
