"""The progress lines of a running sweep if standard output is not a terminal."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.records.group_state import GroupState
from orchestrator.results.progress_line import ProgressLine, line
from orchestrator.results.status import SweepStatus, group_status

STATUS = SweepStatus(
    sweep_id="small-123456", state="running", process=1, shards_done=1, shards=3, evaluations_done=0, evaluations=4,
    accuracy=0.5, tasks_per_second=0.25, eta=90.0, groups=[group_status("a", GroupState())], waiting=[],
)  # fmt: skip


def test_a_line_shows_the_progress_of_the_sweep() -> None:
    wanted = (
        "shards 1/3 · evaluations 0/4 · 0.25 tasks/s · accuracy so far 50.00 % · "
        "ETA 1 min 30 s plus the time of the evaluations"
    )
    assert line(STATUS) == wanted


def test_a_line_omits_an_unknown_accuracy_and_shows_an_unknown_eta_as_a_dash() -> None:
    over = replace(STATUS, shards_done=3, evaluations_done=4, accuracy=None, eta=None)
    assert line(over) == "shards 3/3 · evaluations 4/4 · ETA –"
    (group,) = STATUS.groups
    nns = replace(over, groups=[replace(group, masks=5), replace(group, masks=2), group])
    assert "7 masks" in line(nns)


def test_plain_lines_are_printed_when_they_change_and_not_too_often(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("orchestrator.results.progress_line.time.monotonic", lambda: now[0])
    with ProgressLine() as progress:
        progress.update(STATUS)
        now[0] += 60
        progress.update(STATUS)
        progress.update(replace(STATUS, shards_done=2))
        now[0] += 1
        progress.update(replace(STATUS, shards_done=3))
    shown = capsys.readouterr()
    assert shown.out == ""
    assert [text.split(" · ")[0] for text in shown.err.splitlines()] == ["shards 1/3", "shards 2/3"]
