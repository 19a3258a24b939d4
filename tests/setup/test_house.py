"""Which way data flows through the package: what may import what. And what texts may name."""

from __future__ import annotations

import ast
import graphlib
import re
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "hybriddepth_ros"
FILES = sorted(PACKAGE.rglob("*.py"))


def module_name(file: Path) -> str:
    return ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def imports(file: Path) -> set[str]:
    """Every module that the file names in an import, wherever the import stands."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_no_two_modules_import_each_other() -> None:
    names = {module_name(file) for file in FILES}
    # A package's __init__ gathers what its own modules offer, so the way up to it is no circle.
    graph = {
        module_name(file): {
            name for name in imports(file) & names if not module_name(file).startswith(f"{name}.")
        }
        for file in FILES
    }
    graphlib.TopologicalSorter(graph).prepare()  # CycleError names the circle


def test_only_the_ros_folder_imports_rclpy() -> None:
    """And doctor, which asks whether it can be imported."""
    found = {
        file.relative_to(PACKAGE).as_posix()
        for file in FILES
        if any(name.partition(".")[0] == "rclpy" for name in imports(file))
    }
    assert {name for name in found if not name.startswith("ros/")} == {"commands/doctor_checks.py"}


def test_no_text_names_a_place_outside_the_repository() -> None:
    root = PACKAGE.parent
    for file in (*root.glob("*.md"), *root.glob("docs/*.md"), *root.glob("benchmarks/*.py")):
        for place in re.findall(r"(?<![\w.])\.\./[\w./-]+", file.read_text()):
            assert (file.parent / place).exists(), f"{file.name}: {place}"
