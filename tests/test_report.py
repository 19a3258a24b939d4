"""The report: everything inside one file, nothing of what it is told taken as markup."""

import re

from hybriddepth_ros.report import Figure, Picture, Report, Table, number, percent, render_report


def test_a_report_is_one_file_that_loads_nothing() -> None:
    page = render_report(
        Report(
            title="Depth <of> & a",
            lead="lead",
            figures=[Figure("error", "1.0 %", "note")],
            pictures=[Picture("depth", b"\x89PNG", "caption")],
            tables=[Table("errors", ["a", "b"], [["<script>", "2"]], "why")],
            footer=["footer"],
        )
    )
    assert re.findall(r'(?:src|href)="([^"]*)"', page) == ["data:image/png;base64,iVBORw=="]
    assert "http" not in page
    assert "<script>" not in page and "&lt;script&gt;" in page
    assert "Depth &lt;of&gt; &amp; a" in page
    for text in ("1.0 %", "caption", "why", "footer", "lead"):
        assert text in page


def test_numbers_have_units_and_missing_ones_a_dash() -> None:
    assert number(12.346, 1, "ms") == "12.3 ms"
    assert number(float("nan")) == number(None) == "–"
    assert percent(0.042) == "4.2 %"
