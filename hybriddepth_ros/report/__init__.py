"""Reports for people: one HTML file with its pictures inside, to be opened anywhere and sent by mail."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

NO_VALUE = "–"


@dataclass(frozen=True)
class Figure:
    """A number that matters: its label, the value with its unit, and what to hold it against."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Picture:
    """A PNG with its title and what is to be seen in it."""

    title: str
    png: bytes
    caption: str = ""

    @property
    def data_uri(self) -> str:
        return "data:image/png;base64," + base64.b64encode(self.png).decode("ascii")


@dataclass(frozen=True)
class Table:
    """Rows of text; the first column is a label, the others are numbers."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True)
class Report:
    """What a report says, from top to bottom."""

    title: str
    lead: str
    figures: Sequence[Figure] = ()
    summary: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()
    footer: Sequence[str] = field(default_factory=tuple)


def render_report(report: Report) -> str:
    """The report as one HTML page that loads nothing from anywhere."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("hybriddepth_ros", "report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(report=report)


def number(value: Any, digits: int = 2, unit: str = "") -> str:
    """`12.35 ms`; a dash where there is no value."""
    if value is None or not math.isfinite(value):
        return NO_VALUE
    return f"{value:.{digits}f}{' ' + unit if unit else ''}"


def percent(share: float, digits: int = 1) -> str:
    """`4.2 %` from 0.042; a dash where there is no value."""
    return number(100.0 * share, digits, "%")
