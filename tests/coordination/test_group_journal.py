"""The journal of a training group: its ledger, its state and its snapshots."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from orchestrator.coordination.coordinator import StalledJob
from orchestrator.coordination.group_journal import MAX_RETRIES, GroupJournal
from orchestrator.coordination.messages import Failed, Lost
from orchestrator.coordination.settings import GroupSettings, StorageSettings
from orchestrator.records.group_state import LaunchStatus
from orchestrator.records.ledgers.ledger import BehindError, FencedError, LedgerReader, LedgerWriter
from orchestrator.records.ledgers.ledger_file import read_copy, snapshot_path
from orchestrator.records.ledgers.snapshots import SnapshotId, Snapshots
from orchestrator.records.object_storage import Storage
from orchestrator.records.rows import JobRetried, PointCompleted, ShardTrained, TaskCancelled
from tests.outputs import wait_for
from tests.records.samples import TRAINED, VERSION


def opened(settings: GroupSettings) -> GroupJournal:
    return GroupJournal(settings, lambda restored: f"restored={restored}")


def kinds(settings: GroupSettings) -> list[str]:
    with LedgerReader(settings.folder.ledger) as reader:
        return [row.event.kind for row in reader.rows()]


@pytest.fixture
def stored(group: GroupSettings, tmp_path: Path) -> GroupSettings:
    """The settings of a group whose output is a cache of a storage."""
    url = f"file://{tmp_path}/stored"
    storage = StorageSettings(
        store=f"{url}/store", masks=f"{url}/masks", group=f"{url}/group", output_id="aaaaaaaa", cache_bytes=None,
        snapshot_every=0.0,
    )  # fmt: skip
    return replace(group, storage=storage)


def snapshots_of(settings: GroupSettings) -> Snapshots:
    assert settings.storage is not None
    return Snapshots(Storage(settings.storage.group))


def take_snapshots_until_fenced(journal: GroupJournal) -> None:
    deadline = time.monotonic() + 30
    while not journal.is_fenced and time.monotonic() < deadline:
        journal.take_snapshot_if_due(now=True)
        time.sleep(0.05)


def test_each_launch_records_its_plan_once(group: GroupSettings) -> None:
    opened(group).close()
    opened(replace(group, continues_launch=True)).close()
    assert kinds(group) == ["plan"]
    opened(group).close()
    assert kinds(group) == ["plan", "plan"]


def test_a_launch_that_continues_without_a_ledger_records_its_plan(group: GroupSettings) -> None:
    opened(replace(group, continues_launch=True)).close()
    assert kinds(group) == ["plan"]


def test_a_corrupt_ledger_is_set_aside_and_recorded(group: GroupSettings) -> None:
    opened(group).close()
    group.folder.ledger.write_bytes(b"no ledger")
    journal = opened(group)
    (lost,) = journal.state.lost
    assert (lost.event.key, lost.event.reason) == ("", "restored=False")
    assert Path(lost.event.file).read_bytes() == b"no ledger"
    journal.close()


def test_a_result_that_is_reported_twice_is_recorded_once(group: GroupSettings) -> None:
    journal = opened(group)
    for sha256 in ("1", "2"):
        journal.record_results([ShardTrained("a", TRAINED, sha256)])
    assert journal.state.trained["a"].event.sha256 == "1"
    assert kinds(group) == ["plan", "trained"]
    journal.close()


def test_a_job_fails_after_too_many_deaths_of_its_workers(group: GroupSettings) -> None:
    journal = opened(group)
    for _ in range(MAX_RETRIES):
        journal.record_death(Lost("a", "train", "killed"), "task 0")
        journal.record_death(Lost("a", "train", "its node died", node_lost=True), "task 0")
    assert not journal.state.failed
    journal.record_death(Lost("a", "train", "killed"), "task 0")
    assert journal.state.failed["a"].event.error == f"{MAX_RETRIES + 1} workers died during this job: killed"
    assert journal.state.failed["a"].event.what == "task 0"
    journal.close()


def test_a_stalled_job_is_recorded_in_words(group: GroupSettings) -> None:
    journal = opened(group)
    journal.record_stalled(StalledJob("a", "train", 1, 100.0, 2.0), "task 0")
    event = journal.state.stalled["a"].event
    assert (event.what, event.worker, event.seconds, event.usual_seconds) == ("task 0", 1, 100.0, 2.0)
    journal.close()


def test_a_stop_is_recorded_once_with_the_last_evaluation_point(group: GroupSettings) -> None:
    journal = opened(group)
    journal.record(PointCompleted("r", 2, {"accuracy": 0.5}, ()))
    journal.record_stop()
    journal.record_stop("DivergedError")
    assert journal.state.stopped is not None
    assert journal.state.stopped.event.num_learned == 2
    assert journal.state.stopped.event.diverged is None
    journal.close()


@pytest.mark.parametrize(
    ("what", "paused", "status"),
    [
        ("", False, "done"), ("", True, "interrupted"), ("failed", True, "failed"), ("stopped", True, "stopped"),
        ("cancelled", False, "stopped"), ("cancelled", True, "interrupted"),
    ],
)  # fmt: skip
def test_the_status_at_the_end_of_a_launch(group: GroupSettings, what: str, paused: bool, status: LaunchStatus) -> None:
    journal = opened(group)
    if what == "failed":
        journal.record_failure(Failed("a", "train", "error", ""), "task 0")
    elif what == "stopped":
        journal.record_stop()
    elif what == "cancelled":
        journal.record(TaskCancelled("a", 0))
    assert journal.end(paused) == status
    assert journal.state.ended == status
    assert (kinds(group)[-1] == "ended") is (status != "interrupted")


def test_an_artifact_that_turns_out_intact_is_not_set_aside(group: GroupSettings) -> None:
    journal = opened(group)
    key = "ab12" * 8
    path = journal.store.path(key)
    assert journal.set_aside(journal.store, key) == path  # missing
    journal.store.put(key, {"any": torch.ones(2)}, VERSION)
    assert journal.set_aside(journal.store, key) is None
    path.write_bytes(b"corrupt")
    aside = journal.set_aside(journal.store, key)
    assert aside is not None
    assert aside.read_bytes() == b"corrupt"
    assert not path.exists()
    journal.close()


def test_a_snapshot_is_taken_when_one_is_due(group: GroupSettings) -> None:
    journal = opened(group)
    snapshot = snapshot_path(group.folder.ledger)
    journal.take_snapshot_if_due()
    assert not snapshot.exists()
    journal.take_snapshot_if_due(now=True)
    assert snapshot.exists()
    journal.close()


def test_another_process_that_takes_over_fences_the_journal_and_pauses_its_sweep(stored: GroupSettings) -> None:
    journal = opened(stored)
    assert wait_for(snapshots_of(stored).ids) == [SnapshotId(1, "aaaaaaaa")]
    snapshots_of(stored).put(SnapshotId(2, "bbbbbbbb"), read_copy(stored.folder.ledger))
    take_snapshots_until_fenced(journal)
    assert journal.is_fenced
    assert "another process has taken over" in stored.folder.sweep.pause_file.read_text()
    journal.close()


def test_a_ledger_older_than_its_stored_snapshot_is_not_written_to(stored: GroupSettings, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.sqlite"
    writer = LedgerWriter(elsewhere, above=4)
    writer.append(JobRetried("a", ""))
    writer.close()
    snapshots_of(stored).put(SnapshotId(5, "bbbbbbbb"), read_copy(elsewhere))
    with pytest.raises(BehindError, match="run `supsup resume`, which fetches the newer ledger first"):
        opened(stored)
    assert issubclass(BehindError, FencedError)
    assert not stored.folder.ledger.exists()


def test_a_writers_epoch_is_larger_than_all_epochs_in_the_storage(stored: GroupSettings) -> None:
    snapshots_of(stored).put(SnapshotId(7, "aaaaaaaa"), b"whatever")
    journal = opened(stored)
    journal.end(paused=True)
    assert snapshots_of(stored).ids()[0] == SnapshotId(8, "aaaaaaaa")
