"""The documentation builds without dead links, and its examples, keys and names agree with the code."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.results.report.publication import published_page
from orchestrator.spec.search_space import Search
from orchestrator.spec.sweep_config import Resources, SweepConfig

TOP = Path(__file__).parents[2]
DOCS = TOP / "docs"


def blocks(page: Path, kinds: str) -> list[tuple[str, str]]:
    """Returns the fenced code blocks whose language matches the regular expression `kinds`, as (language, text)."""
    return re.findall(rf"^```({kinds})\n(.*?)^```", page.read_text(), re.M | re.S)


def test_pages_build_without_dead_links(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    built = subprocess.run(command, cwd=TOP, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    assert "Grubbs" in (tmp_path / "site" / "adr" / "0006-outliers-among-peers.html").read_text()
    assert "supsup resume" in (tmp_path / "site" / "reference" / "cli.html").read_text()
    assert "learn_together" in (tmp_path / "site" / "reference" / "api.html").read_text()


def test_files_linked_from_the_readme_exist() -> None:
    links = re.findall(r"\]\(([^)#]+)", (TOP / "README.md").read_text())
    assert links
    assert [link for link in links if "://" not in link and not (TOP / link).exists()] == []


def test_every_decision_is_in_the_index() -> None:
    index = (DOCS / "adr" / "index.md").read_text()
    files = sorted(DOCS.glob("adr/0*.md"))
    assert len(files) >= 16
    assert [path.name for path in files if f"({path.name})" not in index] == []


def test_guide_names_every_key() -> None:
    guide = (DOCS / "guide.md").read_text()
    keys = [field.name for config in (SweepConfig, Resources, Search) for field in dataclasses.fields(config)]
    assert [key for key in keys if not re.search(rf"[`.]{key}\b|^\s+{key}:|#.*`{key}`", guide, re.M)] == []


@pytest.mark.parametrize("page", ["tutorial.md", "guide.md"])
def test_sweep_files_on_pages_can_be_planned(page: str, supsup: Callable[..., Any], tmp_path: Path) -> None:
    files = [(kind, text) for kind, text in blocks(DOCS / page, "yaml|python") if re.match(r"# \w+\.(yaml|py)", text)]
    assert files
    names = [text.split()[1].rstrip(",:") for _, text in files]
    for name, (_, text) in zip(names, files, strict=True):
        (tmp_path / name).write_text(text)
    for name in names:
        if name.endswith(".yaml"):
            planned = supsup("plan", tmp_path / name)
            assert planned.code == 0, planned.err


def is_defined(name: str, text: str) -> bool:
    """Returns whether the source text of a module defines a function, class, attribute or constant of this name."""
    return bool(re.search(rf"\b(?:def|class) {name}\b|^\s*(?:self\.)?{name}\b[^=\n]*[:=]", text, re.M))


def test_files_and_names_on_the_architecture_page_exist() -> None:
    """Each path exists in the repository or in `orchestrator`, and each name after a path is defined in that file."""
    cells = re.findall(r"\|([^|\n]*\.py`[^|\n]*)\|", (DOCS / "architecture.md").read_text())
    assert len(cells) > 30
    missing = []
    for cell in cells:
        text = ""
        for word in re.findall(r"`([^`]+)`", cell):
            if word.endswith((".py", "/")):
                found = [path for path in (TOP / word, TOP / "orchestrator" / word) if path.exists()]
                text = found[0].read_text() if found and found[0].is_file() else ""
                missing += [] if found else [word]
            elif text and not all(is_defined(part, text) for part in word.split(".")):
                missing.append(f"{word} in: {cell.strip()}")
    assert missing == []


def test_picture_of_the_packages_is_current() -> None:
    command = [sys.executable, str(DOCS / "scripts" / "package_picture.py"), "--check"]
    checked = subprocess.run(command, cwd=TOP, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


def test_notebook_page_prints_what_it_shows(
    supsup: Callable[..., Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ran = supsup("sweep", TOP / "sweeps" / "quickstart.yaml", "scale=smoke", "--local")
    assert ran.code == 0, ran.err
    names: dict[str, Any] = {}
    printed = ""
    for kind, text in blocks(DOCS / "notebooks.md", "python|text"):
        if kind == "text":
            assert [line.rstrip() for line in printed.splitlines()] == text.splitlines()
            continue
        exec(compile(text, "docs/notebooks.md", "exec"), names)
        printed = capfd.readouterr().out
    assert (tmp_path / "accuracy.svg").exists()


def test_the_page_of_published_accuracies_and_its_counts_in_the_readme_are_current() -> None:
    page = (DOCS / "results" / "published.md").read_text()
    assert page == published_page(DOCS / "results"), (
        "publish any sweep again: supsup report SWEEP --publish docs/results"
    )
    counts = next(line for line in page.splitlines() if "comparisons:" in line)
    assert counts in (TOP / "README.md").read_text().replace("\n", " ")
