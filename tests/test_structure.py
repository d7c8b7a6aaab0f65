"""Limits on the size of files, functions and folders, which keep them readable."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TOP = Path(__file__).parents[1]
PACKAGES = ("orchestrator", "supsup_core")
MAX_LINES, MAX_FUNCTION_LINES, MAX_MODULES = 350, 60, 12


@pytest.mark.parametrize("folder", [*PACKAGES, "tests", "bench"])
def test_no_file_and_no_function_is_too_long(folder: str) -> None:
    files = sorted((TOP / folder).rglob("*.py"))
    assert files
    too_long = []
    for path in files:
        text = path.read_text()
        sizes = {"": len(text.splitlines()) - MAX_LINES}
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                sizes[node.name] = node.end_lineno - node.lineno + 1 - MAX_FUNCTION_LINES
        too_long += [f"{path.relative_to(TOP)} {name}: {size} lines" for name, size in sizes.items() if size > 0]
    assert too_long == []


def test_messages_are_printed_by_say() -> None:
    """`say` escapes what a terminal would run; see orchestrator/base/wording.py."""
    found = []
    for path in sorted((TOP / "orchestrator").rglob("*.py")):
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        found += [path.name for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]
    assert found == ["wording.py"]


@pytest.mark.parametrize("package", PACKAGES)
def test_no_folder_has_too_many_modules(package: str) -> None:
    """`__init__.py` does not count."""
    counts = {path.parent: 0 for path in (TOP / package).rglob("*.py")}
    assert len(counts) > 5
    for folder in counts:
        counts[folder] = len([path for path in folder.glob("*.py") if path.name != "__init__.py"])
    assert {folder.name: count for folder, count in counts.items() if count > MAX_MODULES} == {}
