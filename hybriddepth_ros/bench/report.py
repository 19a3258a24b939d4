"""The figures for people: a table in the terminal, docs/benchmarks.md, and a plot over size and slices."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from hybriddepth_ros.chart_style import COLOURS, chart_figure, label_axis
from hybriddepth_ros.pictures import png

FILES = ("benchmarks.md", "benchmarks.png")
SOAK_FILE = "soak.md"
_SCALING = re.compile(r"scaling_(\d+)x(\d+)_(\d+)")
_HEADINGS = ("figure", "value", "baseline", "ratio", "target", "met")
_TABLE_WIDTH = 92
_PANEL_IN = (3.4, 3.0)

_CONDITIONS = """\
Value and baseline are of the same run, times are medians. 640x480, five slices, hand-held sway and
breathing, unless a name says otherwise."""
_MEANINGS = """\
- `rolling_*_slice_cost`, `scaling_*`: depth and sigma of one new slice by `RollingEstimator`; baseline:
  `DepthEstimator` on the whole stack. `stage_*`: parts of the first, `classical`. `all_in_focus`: what the
  all-in-focus image takes in addition, where somebody wants it or a cloud; the node makes it beside the next
  estimate.
- `rolling_sweepnet_difference`: mean difference of the two, of a scene that stands still.
- `rolling_classical_rate`: the highest rate of depth images of the node `depth` with `update: slice` at which
  less than 5 % of them were lost in one of two tries, fed and heard over DDS by another process; baseline:
  `update: sweep`;
  `*_of_all` (not with `--quick`): sigma, rgb and the cloud are subscribed to as well.
- `latency_*`, `dropped_at_30_slices`, `cpu_share`, `memory`: the same node at 30 slices/s. Latency is from a
  slice's stamp, when it was sent, to the arrival of its depth image in the other process.
- `overhead_*`: what is not the model: one slice in, its registration, depth, sigma, rgb and the full cloud
  out to another process; baseline: a plain node with `cv_bridge` and `create_cloud` of an [N, 5] array, which
  registers its whole stack for every update, by the same algorithm.
- `hybriddepth_*`: the paper's network, drawn weights; baseline: eager PyTorch on the whole stack; reduced:
  int8 (GPU: bfloat16); rolling: a fifth of a sweep of new slices with its one prior, float32 (GPU: bfloat16);
  `*_with_transfers`: the latter from images in the machine's memory to depth there, beside the same baseline.
- ratio: value / baseline; of `overhead_*` and `hybriddepth_*` baseline / value, times faster."""


def print_table(document: Mapping[str, Any]) -> None:
    """The rows, and what was left out, on the terminal."""
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE, padding=(0, 1, 0, 0), title=f"{document['machine']}, {document['commit']}")
    for heading in _HEADINGS:
        justify: Literal["left", "right"] = "right" if heading in ("value", "baseline", "ratio") else "left"
        table.add_column(heading, justify=justify, no_wrap=True)
    for cells in _cells(document):
        table.add_row(*cells)
    console = Console(highlight=False)
    console.width = max(console.width, _TABLE_WIDTH)  # a narrower terminal folds lines, rich cuts words
    console.print(table)
    for line in document["left_out"]:
        console.print(line)


def markdown(document: Mapping[str, Any], command: str) -> str:
    """docs/benchmarks.md."""
    lines = [
        "# Benchmarks",
        "",
        f"- Machine: {document['machine']}",
        f"- Commit: {document['commit']}",
        f"- Command: `{command}`, with `--docs` for this page and the plot",
        "",
        *_CONDITIONS.splitlines(),
        "",
        f"| {' | '.join(_HEADINGS)} |",
        "|---|---|---|---|---|---|",
        *(f"| {' | '.join((f'`{name}`', *cells))} |" for name, *cells in _cells(document)),
        "",
        *(f"Left out: {line}\n" for line in document["left_out"]),
        *_MEANINGS.splitlines(),
        f"- Memory and what becomes of every slice in an hour (`make soak`): [{SOAK_FILE}]({SOAK_FILE}).",
        "",
        "![Time and rate over resolution and slices](benchmarks.png)",
    ]
    return "\n".join(lines) + "\n"


def soak_markdown(result: Mapping[str, Any], machine: str, commit: str) -> str:
    """docs/soak.md, of what `hybriddepth bench --soak` found."""
    sent, received = result["slices_sent"], result["slices_received"]
    limit = result["most_growth_mb"]
    rows = [
        ("slices sent", f"{sent}, {result['rate_hz']:g} each second, {result['image']}", ""),
        ("slices received", f"{received} ({100.0 * received / sent:.2f} %)", ""),
        ("the subscriber came", f"{result['subscriber_came']} times", ""),
        ("depth images made", f"{result['estimates']}", ""),
        *((f"counted: {cause}", f"{count}", "") for cause, count in result["counted"].items()),
        ("slices that no counter has", f"{result['not_counted']}", "0"),
        ("memory at the end", f"{result['memory_mb']:.0f} MB", ""),
        (
            f"growth of memory after {_number(result['settle_s'])} s",
            f"{result['memory_growth_mb']:.1f} MB",
            f"< {limit:g} MB",
        ),
        ("passed", "yes" if result["passed"] else "no", "yes"),
    ]
    lines = [
        f"# Slices for {_minutes(result['seconds'])}",
        "",
        f"- Machine: {machine}",
        f"- Commit: {commit}",
        f"- Command: `hybriddepth bench --soak {result['seconds']:g}`: the node `depth`, `update: slice`,",
        "  `model: classical`, fed over DDS by another process, which listens for"
        f" {result['here_s']:g} s, then not for {result['away_s']:g} s.",
        "",
        "| figure | value | target |",
        "|---|---|---|",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]
    return "\n".join(lines) + "\n"


def _minutes(seconds: float) -> str:
    return f"{seconds:g} s" if seconds < 120.0 else f"{seconds / 60.0:.3g} min"


def _cells(document: Mapping[str, Any]) -> Iterable[tuple[str, ...]]:
    for row in document["results"]:
        target, met = row.get("target", ""), row.get("met")
        yield (
            row["name"],
            f"{_number(row['value'])} {row['unit']}",
            "" if row["baseline"] is None else f"{_number(row['baseline'])} {row['unit']}",
            "" if row["ratio"] is None else _number(row["ratio"]),
            f"{row['target_of']} {target}" if target else "",
            "" if met is None else ("yes" if met else "no"),
        )


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def chart(document: Mapping[str, Any]) -> bytes:
    """PNG: time of an estimate and estimates per second, over the image's size and over the slices."""
    sizes: list[tuple[float, str, float, float]] = []
    counts: list[tuple[float, str, float, float]] = []
    for row in document["results"]:
        if found := _SCALING.fullmatch(row["name"]):
            width, height, count = (int(text) for text in found.groups())
            times = (row["value"], row["baseline"])
            if count == 5:
                sizes.append((width * height * 1e-6, f"{width}x{height}", *times))
            if (width, height) == (640, 480):
                counts.append((count, str(count), *times))
    figure, axes = chart_figure(4, *_PANEL_IN)
    for place, (cases, label) in enumerate(((sizes, "image, five slices"), (counts, "slices, 640x480"))):
        cases.sort()
        x = [case[0] for case in cases]
        for axis, unit, is_rate in ((axes[2 * place], "ms", False), (axes[2 * place + 1], "1/s", True)):
            one_new, whole = ([case[2] for case in cases], [case[3] for case in cases])
            for name, colour, times_ms in (
                ("one new slice", COLOURS[0], one_new),
                ("whole stack", COLOURS[1], whole),
            ):
                values = [1e3 / ms for ms in times_ms] if is_rate else times_ms
                axis.plot(x, values, "o-", color=colour, ms=4, label=name)
            axis.set_xticks(x, [case[1] for case in cases], rotation=30 if place == 0 else 0)
            axis.set_ylim(bottom=0)
            what = "depth images" if is_rate else "time of one depth image"
            label_axis(axis, label, f"{what} [{unit}]", legend=place == 0 and not is_rate)
    return png(figure)
