"""The documentation: it builds, no link in it is dead, and no key of a sweep file is missing from the guide."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.spec.search_space import Search
from orchestrator.spec.sweep_config import Resources, SweepConfig

TOP = Path(__file__).parents[2]


def test_the_pages_build_without_a_dead_link(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    built = subprocess.run(command, cwd=TOP, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    assert "Grubbs" in (tmp_path / "site" / "adr" / "0006-outliers-among-peers.html").read_text()


def test_what_the_readme_links_to_is_there() -> None:
    links = re.findall(r"\]\(([^)#]+)", (TOP / "README.md").read_text())
    assert links
    assert [link for link in links if "://" not in link and not (TOP / link).exists()] == []


def test_the_guide_names_every_key() -> None:
    guide = (TOP / "docs" / "guide.md").read_text()
    keys = [field.name for config in (SweepConfig, Resources, Search) for field in dataclasses.fields(config)]
    assert [key for key in keys if not re.search(rf"[`.]{key}\b|^\s+{key}:|#.*`{key}`", guide, re.M)] == []


def test_the_notebook_page_prints_what_it_says(
    supsup: Callable[..., Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    found = supsup("sweep", TOP / "sweeps" / "quickstart.yaml", "scale=smoke", "--local")
    assert found.code == 0, found.err
    blocks = re.findall(r"^```(python|text)\n(.*?)^```", (TOP / "docs" / "notebooks.md").read_text(), re.M | re.S)
    names: dict[str, Any] = {}
    printed = ""
    for kind, text in blocks:
        if kind == "text":
            assert [line.rstrip() for line in printed.splitlines()] == text.splitlines()
            continue
        exec(compile(text, "docs/notebooks.md", "exec"), names)
        printed = capfd.readouterr().out
    assert (tmp_path / "accuracy.svg").exists()
