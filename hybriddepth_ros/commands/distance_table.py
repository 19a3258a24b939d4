"""The table of errors over distance, as the reports of `demo` and `evaluate` show it."""

from __future__ import annotations

from collections.abc import Sequence

from hybriddepth_ros.evaluation.metrics import DistanceBin
from hybriddepth_ros.report import Table, number, percent

_WITHIN = {"coverage": "within 1 sigma", "coverage_2_sigma": "within 2 sigma"}


def distance_table(bins: Sequence[tuple[str, DistanceBin]], within: Sequence[str]) -> Table:
    """A row per bin, with what stands before its distance; within: which coverages are shown."""
    rows = [
        (
            f"{before}{one.near:.2f} – {one.far:.2f} m",
            percent(one.median_relative, 2),
            number(100 * one.median_error, 2, "cm"),
            number(100 * one.median_sigma, 2, "cm"),
            *(percent(getattr(one, coverage)) for coverage in within),
            percent(one.valid_share),
        )
        for before, one in bins
    ]
    columns = (
        "true distance",
        "median error",
        "median |error|",
        "median sigma",
        *(_WITHIN[coverage] for coverage in within),
        "estimated",
    )
    return Table("By distance", columns, rows, "Bins are even in diopters, in which focus cues are linear.")
