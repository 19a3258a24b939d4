"""What the charts of all reports have in common: colours, figures, axes."""

from __future__ import annotations

from typing import Any

# Okabe and Ito's colours, which the colour-blind can tell apart.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")


def chart_figure(columns: int, width_in: float, height_in: float) -> tuple[Any, Any]:
    """A figure and its axes [columns] side by side, each of this size."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in * columns, height_in), dpi=110)
    figure.set_layout_engine("constrained")
    return figure, figure.subplots(1, columns, squeeze=False)[0]


def label_axis(axis: Any, x: str, y: str, legend: bool = False) -> None:
    """Names what is drawn, and takes away what says nothing."""
    axis.set_xlabel(x, fontsize=9)
    axis.set_ylabel(y, fontsize=9)
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=8)
    if legend:
        axis.legend(frameon=False, fontsize=8)
