"""The pages of a documentation folder: the page of a sweep, and the page of all published accuracies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from orchestrator.base.environment import describe
from orchestrator.execution.launch import settings_of
from orchestrator.results.report import publish
from orchestrator.results.report.publication import findings, kind_of, published_page
from orchestrator.results.report.published import COLUMNS, curves
from orchestrator.sweeps.lookup import read_states
from orchestrator.sweeps.sweep import open_sweep
from supsup_core.errors import InputError
from tests.scripted import run

Supsup = Callable[..., Any]
PSP = next(curve for curve in curves() if (curve.source, curve.name) == ("figure 7, left", "PSP, GG"))


def row(**cells: object) -> dict[str, object]:
    """Returns a row of published.csv about figure 7."""
    cells = {
        "run": "PSP GG", "tasks": 10, "seeds": 3, "published %": 94.8, "ours %": 94.9, "difference": 0.1, "low": 0.0,
        "high": 0.2, "tolerance": 0.8, "verdict": "reproduced", "source": "figure 7, left", "curve": "PSP, GG",
        "confidence": "digitised", "key": PSP.key, **cells,
    }  # fmt: skip
    assert set(cells) == set(COLUMNS)
    return cells


def published(folder: Path, sweep: str, *rows: dict[str, object]) -> None:
    (folder / sweep).mkdir()
    pd.DataFrame(rows, columns=COLUMNS).to_csv(folder / sweep / "published.csv", index=False)


def lines_of(page: str, *cells: str) -> list[str]:
    return [line for line in page.splitlines() if line.startswith("| " + " | ".join(cells) + " |")]


def test_a_sweep_is_published_with_its_page_figures_data_and_settings(
    supsup: Supsup, sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    file = sweep_file(grid={"scenario": ["GG", "GNu"]}, seeds=[0, 1], training={"num_batches": 5})
    assert supsup("sweep", file, "--local").code == 0
    found = supsup("report", "--publish", tmp_path / "pages")
    assert found.code == 0, found.err
    assert f"published: {tmp_path / 'pages' / 'small' / 'report.md'}" in found.out
    names = {path.name for path in (tmp_path / "pages" / "small").iterdir()}
    assert names >= {"report.md", "sweep.yaml", "final.csv", "summary.csv", "paired.csv", "accuracy_by_task.png"}
    page = (tmp_path / "pages" / "small" / "report.md").read_text()
    assert page.splitlines()[2] == "- No published accuracy belongs to a run of this sweep."
    assert page.splitlines()[3].startswith("- Highest accuracy: ")
    order = [page.index(part) for part in ("- Highest", "![", "## Results", "## Seed by seed", "## How it was made")]
    assert order == sorted(order)
    again = open_sweep(tmp_path / "pages" / "small" / "sweep.yaml", [f"output={tmp_path / 'runs'}"])
    assert again.sweep_id == open_sweep(file, [f"output={tmp_path / 'runs'}"]).sweep_id
    assert (tmp_path / "pages" / "published.md").is_file()


def test_a_comparison_with_an_earlier_published_yaml_is_refused(tmp_path: Path) -> None:
    published(tmp_path, "one", row(key="another"))
    with pytest.raises(InputError, match=r"one: was compared with other settings .*; publish the sweep again"):
        published_page(tmp_path)


def test_an_unfinished_sweep_is_published_as_unfinished_and_without_places_of_this_machine(
    supsup: Supsup, sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    file = sweep_file(seeds=[0, 1], training={"num_batches": 5})
    sweep = open_sweep(file, [f"output={tmp_path / 'runs'}", f"data={tmp_path}"])
    groups = sweep.plan()
    sweep.save(groups)
    settings = settings_of(sweep, groups[0], describe(tmp_path), 1)
    run(settings)
    page = publish(sweep, groups, read_states(sweep.folder, sweep.planned), tmp_path / "pages")
    assert page.read_text().splitlines()[2] == "**Unfinished.** Runs that lack evaluation points: 1."
    assert str(tmp_path) not in (page.parent / "sweep.yaml").read_text()


def test_a_search_is_not_published(sweep_file: Callable[..., Path], tmp_path: Path) -> None:
    file = sweep_file(search={"space": {"training.learning_rate": [1e-3, 1e-2]}}, evaluation=None)
    sweep = open_sweep(file, [f"output={tmp_path / 'runs'}"])
    with pytest.raises(InputError, match=r"is a search, .*; run its best\.yaml, and publish that sweep"):
        publish(sweep, sweep.plan(), {}, tmp_path / "pages")


def test_a_sweep_without_results_and_a_folder_that_is_a_file_are_refused_in_one_line(
    supsup: Supsup, sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    file = sweep_file(training={"num_batches": 5})
    sweep = open_sweep(file, [f"output={tmp_path / 'runs'}"])
    sweep.save(sweep.plan())
    found = supsup("report", "--publish", tmp_path / "pages")
    assert (found.code, len(found.err.splitlines())) == (2, 1)
    assert "no evaluation point is complete yet" in found.err
    assert not (tmp_path / "pages").exists()
    assert supsup("sweep", file, "--local").code == 0
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "small").write_text("a file")
    found = supsup("report", "--publish", tmp_path / "pages")
    assert (found.code, len(found.err.splitlines())) == (2, 1)
    assert "cannot be written" in found.err


def test_each_published_accuracy_has_a_row_and_the_verdicts_are_counted(tmp_path: Path) -> None:
    page = published_page(tmp_path)
    total = sum(len(curve.accuracy) for curve in curves())
    missing = sum(len(curve.accuracy) for curve in curves() if curve.unavailable)
    assert total >= 60
    head = f"{total} published accuracies, {total} comparisons: {total - missing} not run, {missing} no data."
    assert head in page
    for curve in curves():
        for n, accuracy in curve.accuracy.items():
            assert lines_of(page, curve.source, curve.name, str(n), f"{accuracy:.2f}")


def test_every_comparable_run_has_a_row_and_replaces_the_others(tmp_path: Path) -> None:
    published(tmp_path, "one", row(), row(run="PSP, other", verdict="not comparable: x is 1, not 2"))
    published(tmp_path, "two", row(low=float("nan"), high=float("nan"), seeds=1, verdict="not decided (1 seed)"))
    published(tmp_path, "three")
    published(tmp_path, "zero", row(**{"ours %": 94.9}))  # the same result in another sweep is shown once
    page = published_page(tmp_path)
    rows = lines_of(page, "figure 7, left", "PSP, GG", "10", "94.80")
    cells = [[cell.strip() for cell in line.strip("|").split("|")][5:] for line in rows]
    assert cells == [
        ["94.90", "+0.10 (+0.00 to +0.20)", "3", "one: PSP GG", "reproduced"],
        ["94.90", "+0.10", "1", "two: PSP GG", "not decided (1 seed)"],
    ]
    total = sum(len(curve.accuracy) for curve in curves())
    assert f"{total} published accuracies, {total + 1} comparisons: 1 reproduced, 1 not decided, " in page


def test_a_run_that_is_not_comparable_is_named_if_there_is_no_other(tmp_path: Path) -> None:
    published(tmp_path, "one", row(verdict="not comparable: x is 1, not 2"))
    (line,) = lines_of(published_page(tmp_path), "figure 7, left", "PSP, GG", "10", "94.80")
    assert line.endswith("| – | – | – | one: PSP GG | not comparable: x is 1, not 2 |")


@pytest.mark.parametrize("content", ["run,tasks\nPSP GG,10\n", "", '"'])
def test_a_damaged_table_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "published.csv").write_text(content)
    with pytest.raises(InputError, match=r"one/published.csv: .*; publish the sweep again") as error:
        published_page(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("reproduced", "reproduced"),
        ("not decided (3 seeds)", "not decided"),
        ("not comparable: x is 1", "not comparable"),
    ],
)
def test_the_kind_of_a_verdict_has_no_details(said: str, kind: str) -> None:
    assert kind_of(said) == kind


def test_only_decided_differences_are_found() -> None:
    final = pd.DataFrame({"run": ["a", "b", "c"], "tasks": [5, 5, 5], "accuracy %": [90.0, 92.5, 80.0]})
    paired = pd.DataFrame(
        [("b", "a", 5, 3, 2.5, 1.0, 4.0), ("c", "a", 5, 3, -10.0, -21.0, 1.0), ("d", "a", 5, 3, 0.0, 0.0, 0.0)],
        columns=["run", "against", "tasks", "seeds", "difference", "low", "high"],
    )
    tables = {"final.csv": final, "paired.csv": paired, "published.csv": pd.DataFrame(columns=COLUMNS)}
    assert findings(tables) == [
        "No published accuracy belongs to a run of this sweep.",
        "Highest accuracy: 92.50 %, b, after 5 tasks.",
        "Lowest accuracy: 80.00 %, c, after 5 tasks.",
        "After 5 tasks, b is 2.50 percentage points above a (95 % interval +1.00 to +4.00, 3 seeds).",
        "Equal to a with every seed: d.",
        "The difference from a is not decided for c.",
    ]
