"""The round loop recovers from corrupt and missing files to the same bits, and a pause loses no work."""

from __future__ import annotations

import contextlib
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.coordination import group_journal
from orchestrator.coordination.control_files import Requests
from orchestrator.coordination.messages import RebuildJob
from orchestrator.execution.open_coordinator import open_coordinator
from supsup_core.errors import CorruptError
from tests.nns.small_runs import SURE, Make, files_of, science
from tests.scripted import ScriptedPool, run, run_with, state_of


@pytest.mark.parametrize("harm", ["flip", "remove"])
def test_a_corrupt_or_missing_version_is_rebuilt_to_the_same_bits(make: Make, harm: str) -> None:
    tried, wanted = make("tried"), make("wanted")
    run(wanted)
    run(tried, [None] * 25 + ["kill"])
    for path in files_of(tried):
        if harm == "remove":
            path.unlink()
        else:
            content = bytearray(path.read_bytes())
            content[len(content) // 2] ^= 1
            path.write_bytes(content)
    run(tried)
    assert science(tried, harm != "flip") == science(wanted, harm != "flip")
    assert state_of(tried).lost


def test_a_corrupt_version_from_look_ahead_training_is_set_aside(make: Make) -> None:
    """A worker trained the version early and wrote it to disk to free memory. Then all processes were killed."""
    tried, wanted = make("tried", **SURE), make("wanted", **SURE)
    run(wanted)
    pool = ScriptedPool(replace(tried, state_mb=0), iter([None] * 12 + ["kill"]))
    with contextlib.suppress(KeyboardInterrupt):
        run_with(tried, pool)
    decided = {row.event.key for row in state_of(tried).decisions}
    undecided = [p for p in files_of(tried) if p.stem not in decided]
    assert undecided
    for path in undecided:
        path.write_bytes(path.read_bytes()[:-2] + b"xx")
    run(tried)
    assert science(tried) == science(wanted)
    assert {Path(row.event.file).parent for row in state_of(tried).lost} == {tried.folder.masks.path / "corrupt"}


def test_a_corrupt_ledger_falls_back_to_its_snapshot(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_journal, "SNAPSHOT_SECONDS", 0.0)
    tried, wanted = make("tried"), make("wanted")
    run(wanted)
    run(tried, [None] * 25 + ["kill"])
    decided = len(state_of(tried).decisions)
    ledger = tried.folder.ledger
    for path in ledger.parent.glob("ledger.sqlite-*"):
        path.unlink()
    ledger.write_bytes(b"SQLite format 3\x00" + b"\xff" * 5000)
    coordinator = open_coordinator(tried)
    restored = state_of(tried)
    assert 0 < len(restored.decisions) <= decided
    assert "restored from its intact rows or from its newest snapshot" in restored.lost[0].event.reason
    coordinator.close()
    run(tried)
    assert science(tried) == science(wanted)


@pytest.mark.parametrize("harm", ["missing", "empty", "one digit", "no text"])
def test_damage_that_sqlite_does_not_detect_falls_back_to_the_snapshot(
    make: Make, monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    monkeypatch.setattr(group_journal, "SNAPSHOT_SECONDS", 0.0)
    tried, wanted = make("tried"), make("wanted")
    run(wanted)
    run(tried, [None] * 25 + ["kill"])
    ledger = tried.folder.ledger
    if harm in ("missing", "empty"):
        for path in ledger.parent.glob("ledger.sqlite*"):
            path.unlink()
        if harm == "empty":
            ledger.touch()
    else:
        payload = (
            "replace(payload, '\"ordinal\":2', '\"ordinal\":3')" if harm == "one digit" else "CAST(x'7bff7d' AS TEXT)"
        )
        with contextlib.closing(sqlite3.connect(ledger)) as db:
            db.execute(
                f"UPDATE rows SET payload = {payload} WHERE kind = 'decision' AND payload LIKE '%\"ordinal\":2,%'"
            )
            db.commit()
        with pytest.raises(CorruptError, match=str(ledger)):
            state_of(tried)
    run(tried)
    assert "restored from its intact rows or from its newest snapshot" in state_of(tried).lost[0].event.reason
    assert science(tried) == science(wanted)


def test_a_corrupt_evaluation_in_the_store_is_recomputed(make: Make) -> None:
    tried, wanted = make("tried"), make("wanted")
    run(wanted)
    run(tried)
    for path in tried.open_store().folder.files():
        path.write_bytes(path.read_bytes()[:-2] + b"xx")
    for path in list(tried.folder.ledger_files):
        path.unlink()
    run(tried)
    assert science(tried) == science(wanted)
    assert state_of(tried).lost


def test_a_pause_requested_before_the_start_ends_the_run_at_once(make: Make) -> None:
    tried = make("tried")
    status = run_with(tried, ScriptedPool(tried, iter([])), Requests(pause=lambda: True))
    assert status == "interrupted"
    assert not state_of(tried).decisions  # no work was in progress


def test_a_pause_does_not_wait_for_masks_that_are_being_rebuilt(make: Make) -> None:
    settings = make("paused")
    run(settings, [None] * 24 + ["kill"])
    for path in files_of(settings):
        path.unlink()
    coordinator = open_coordinator(settings)
    assert all(isinstance(job, RebuildJob) for _, job in coordinator.next_jobs([0, 1], []))
    assert coordinator.next_jobs([0, 1], [])
    coordinator.pause()
    assert coordinator.next_jobs([0, 1], []) == []
    assert coordinator.finished()
    coordinator.close()
    run(settings)
    assert state_of(settings).status == "done"


def test_a_pause_ends_the_round_and_commits_it(make: Make) -> None:
    tried, wanted = make("tried"), make("wanted")
    run(wanted)
    calls = iter([False] * 11)
    tried = replace(tried, commit_every=60.0)
    status = run_with(tried, ScriptedPool(tried, iter([])), Requests(pause=lambda: next(calls, True)))
    assert status == "interrupted"
    state = state_of(tried)
    assert 0 < len(state.decisions) < 15
    assert len(state.decisions) == state.round
    assert state.ended == "interrupted"
    run(tried)
    assert science(tried) == science(wanted)
