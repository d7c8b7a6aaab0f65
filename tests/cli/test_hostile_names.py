"""Names that somebody else has chosen: no formula, no HTML and no terminal escape comes out of a sweep."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.results.report import write_report
from orchestrator.sweeps.lookup import read_states
from orchestrator.sweeps.sweep import open_sweep
from tests.local_runs import run_sweep

NAMES = ["=cmd|' /C calc'!A1", "@SUM(1)", "<script>alert(1)</script>", "a|b `c` [d](e)", "-0.5", "$x^2$"]


def test_names_of_variants_do_no_harm_anywhere(
    supsup: Callable[..., Any], sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    variants = {name: {"training.num_batches": 4 + number} for number, name in enumerate(NAMES)}
    file = sweep_file(variants=variants, evaluation={"at": [3]}, seeds=[0, 1])
    sweep = open_sweep(file, [])
    run_sweep(sweep)
    report = write_report(sweep, sweep.plan(), read_states(sweep.folder, sweep.planned)).folder
    for table in report.glob("*.csv"):
        cells = [cell for row in csv.reader(io.StringIO(table.read_text())) for cell in row]
        assert [cell for cell in cells if cell.startswith(("=", "@", "+", "\t", "\r"))] == [], table
    final = list(csv.DictReader(io.StringIO((report / "final.csv").read_text())))
    assert final[0]["run"].startswith("'=cmd")
    assert final[4]["run"].startswith("'-0.5 GNu")
    texts = [(report / name).read_text() for name in ("report.html", "report.md")]
    for text in texts:
        assert "<script>alert" not in text
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "a\\|b \\`c\\` \\[d\\](e) GNu" in texts[1]
    for words in (["status"], ["compare", "@SUM(1) seed=0", "a|b seed=1"], ["plan", file]):
        found = supsup(*words)
        assert found.code == 0, found.err


@pytest.mark.parametrize("name", ["\x1b[31m", "a\nb", "\x9b", "\u202e", "", "x" * 201])
def test_a_name_that_cannot_be_printed_is_refused(
    supsup: Callable[..., Any], sweep_file: Callable[..., Path], name: str
) -> None:
    found = supsup("plan", sweep_file(variants={name: {"training.num_batches": 4}}))
    assert (found.code, len(found.err.splitlines())) == (2, 1)
    assert "the name of a variant must have 1 to 200 printable characters" in found.err
    assert "\x1b" not in found.err


def test_a_hostile_name_of_a_class_of_images_is_printed_escaped(
    supsup: Callable[..., Any], sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    for part in ("train", "test"):
        (tmp_path / "data" / "pictures" / part / "\x1b[31mant\n").mkdir(parents=True)
    base = {"name": "image_folder", "folder": "pictures", "num_classes": 1}
    benchmark = {"name": "split", "base": base, "num_tasks": 1, "labels_per_task": 1}
    found = supsup("plan", sweep_file(benchmark=benchmark), "data=data")
    assert (found.code, len(found.err.splitlines())) == (2, 1)
    assert "\\x1b[31mant\\n: the folder has no images" in found.err
