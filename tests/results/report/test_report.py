"""Writing a sweep's report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from orchestrator.results.report import write_report
from orchestrator.sweeps.lookup import read_states
from orchestrator.sweeps.sweep import Sweep, open_sweep
from supsup_core.errors import InputError
from tests.local_runs import run_sweep


@pytest.fixture
def sweep(sweep_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Sweep:
    monkeypatch.chdir(tmp_path)
    return open_sweep(sweep_file(), [])


def test_a_report_is_complete_and_the_same_ledgers_give_the_same_report(sweep: Sweep) -> None:
    run_sweep(sweep)
    groups, states = sweep.plan(), read_states(sweep.folder, {})
    report = write_report(sweep, groups, states)
    assert report.trouble is None
    assert {path.name for path in report.files} == {path.name for path in sweep.folder.report.iterdir()}
    before = {path.name: path.read_bytes() for path in report.files if path.suffix == ".csv"}
    assert set(before) == {
        f"{name}.csv" for name in ("points", "summary", "final", "tasks", "published", "paired", "confusion")
    }
    again = write_report(sweep, groups, states)
    assert {path.name: path.read_bytes() for path in again.files if path.suffix == ".csv"} == before
    assert "GNu one_shot entropy" in report.text
    assert "Unfinished" not in (sweep.folder.report / "report.md").read_text()
    final = pd.read_csv(sweep.folder.report / "final.csv")
    assert final["tasks"].tolist() == [3]


def test_a_sweep_without_evaluations_has_no_report(sweep: Sweep) -> None:
    with pytest.raises(InputError, match=f"no evaluation point is complete yet; run `supsup resume {sweep.sweep_id}"):
        write_report(sweep, sweep.plan(), {})


def test_the_report_of_an_unfinished_sweep_contains_the_results_so_far(sweep: Sweep) -> None:
    run_sweep(sweep)
    (group,) = sweep.plan()
    state = read_states(sweep.folder, {})[group.group_id]
    del state.points[group.runs[0].run_id, 3]
    report = write_report(sweep, [group], {group.group_id: state})
    assert "**Unfinished.** Runs that lack evaluation points: 1." in (sweep.folder.report / "report.md").read_text()
    assert pd.read_csv(sweep.folder.report / "final.csv")["tasks"].tolist() == [1]
    assert not [path for path in report.files if path.stem == "accuracy_over_tasks"]


def test_a_report_that_cannot_be_written_is_still_printed(sweep: Sweep) -> None:
    run_sweep(sweep)
    sweep.folder.report.write_text("a file in the way")
    report = write_report(sweep, sweep.plan(), read_states(sweep.folder, {}))
    assert report.files == []
    assert report.trouble is not None
    assert f"supsup report {sweep.sweep_id}" in report.trouble
    assert "GNu one_shot entropy" in report.text
