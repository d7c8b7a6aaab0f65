"""Snapshots of ledgers in a storage."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from orchestrator.base.output_folder import ArtifactFolder
from orchestrator.records.artifact_store import ArtifactStore
from orchestrator.records.ledgers.ledger import FencedError, LedgerWriter
from orchestrator.records.ledgers.ledger_file import read_copy
from orchestrator.records.ledgers.snapshots import SnapshotId, Snapshots, SnapshotUploader, is_newer, snapshot_ids
from orchestrator.records.object_storage import Storage
from orchestrator.records.rows import JobRetried
from tests.records.samples import VERSION

KEY = "ab" * 16


def masks_in(tmp_path: Path, folder: Storage) -> ArtifactStore:
    return ArtifactStore(ArtifactFolder(tmp_path / "masks"), folder / "masks")


def test_snapshots_are_ordered_by_epoch_and_then_by_output() -> None:
    names = ["ledger-00000002-aaaaaaaa.sqlite", "ledger-00000010-00000000.sqlite", "ledger-00000002-bbbbbbbb.sqlite"]
    found = snapshot_ids([*names, "ledger.sqlite", "ledger-2-aaaaaaaa.sqlite"])
    assert found == [SnapshotId(10, "00000000"), SnapshotId(2, "bbbbbbbb"), SnapshotId(2, "aaaaaaaa")]
    assert [snapshot.file_name for snapshot in found] == [names[1], names[2], names[0]]


def test_a_replaced_writer_cannot_store_a_snapshot(folder: Storage, tmp_path: Path) -> None:
    snapshots = Snapshots(folder)
    snapshots.put(SnapshotId(3, "aaaaaaaa"), b"three")
    snapshots.put(SnapshotId(3, "aaaaaaaa"), b"three again")
    snapshots.put(SnapshotId(4, "bbbbbbbb"), b"four")
    with pytest.raises(FencedError, match="another process has taken over this ledger"):
        snapshots.put(SnapshotId(3, "aaaaaaaa"), b"late")
    snapshots.put(SnapshotId(6, "aaaaaaaa"), b"six")
    assert snapshots.ids() == [SnapshotId(6, "aaaaaaaa"), SnapshotId(4, "bbbbbbbb")]  # the previous snapshot is kept
    assert folder.read("ledger-00000004-bbbbbbbb.sqlite") == b"four"
    assert list(snapshots.sound()) == []  # their bytes are not ledgers
    uploader = SnapshotUploader(snapshots, masks_in(tmp_path, folder))
    uploader.start(SnapshotId(5, "cccccccc"), b"five", [])
    uploader.wait()
    with pytest.raises(FencedError):
        _ = uploader.busy


def test_masks_are_deleted_only_after_a_newer_snapshot_is_stored(folder: Storage, tmp_path: Path) -> None:
    masks = masks_in(tmp_path, folder)
    masks.put(KEY, {"weight": torch.ones(5)}, VERSION)
    masks.drop(KEY)
    assert masks.has(KEY)
    uploader = SnapshotUploader(Snapshots(folder), masks)
    uploader.start(SnapshotId(1, "aaaaaaaa"), b"one", [KEY])
    uploader.wait()
    assert not uploader.busy
    assert not masks.has(KEY)
    uploader.close()


@pytest.mark.parametrize(
    ("stored", "here", "newer"),
    [
        ([], (3, "a"), False),
        ([(4, "b")], (3, "a"), True),
        ([(3, "a")], (3, "a"), False),
        ([(3, "b"), (2, "a")], (3, "a"), True),  # the local ledger is a copy of an earlier epoch's ledger
        ([(3, "a")], (3, "b"), True),
        ([(3, "b")], (4, "a"), False),
    ],
)
def test_a_later_snapshot_of_another_output_is_newer(
    stored: list[tuple[int, str]], here: tuple[int, str], newer: bool
) -> None:
    assert is_newer([SnapshotId(*snapshot) for snapshot in stored], SnapshotId(*here)) is newer


def test_the_newest_intact_snapshot_is_used(tmp_path: Path) -> None:
    """A damaged snapshot is skipped. A ledger that has all rows of a snapshot is not older than the snapshot."""
    snapshots = Snapshots(Storage(f"file://{tmp_path}/stored"))
    path = tmp_path / "ledger.sqlite"
    writer = LedgerWriter(path)
    writer.append(JobRetried("a", ""))
    snapshots.put(SnapshotId(1, "aaaaaaaa"), read_copy(path))
    assert not snapshots.are_ahead_of(path, "bbbbbbbb")
    assert snapshots.are_ahead_of(tmp_path / "none.sqlite", "bbbbbbbb")
    before = writer.rows()
    writer.append(JobRetried("b", "easy to find"))
    snapshots.put(SnapshotId(2, "aaaaaaaa"), read_copy(path).replace(b"easy to find", b"easy to lose"))
    assert [rows for _, rows in snapshots.sound()] == [before]
    writer.close()


def test_a_ledger_that_is_shorter_than_its_own_stored_snapshot_is_behind_it(tmp_path: Path) -> None:
    """For example, an older copy of the ledger was put back. The epochs are equal."""
    snapshots = Snapshots(Storage(f"file://{tmp_path}/stored"))
    path = tmp_path / "ledger.sqlite"
    writer = LedgerWriter(path)
    writer.append(JobRetried("a", ""))
    older = read_copy(path)
    for number in range(40):
        writer.append(JobRetried(str(number), "a reason that is long enough to fill pages" * 3))
    snapshots.put(SnapshotId(writer.epoch, "aaaaaaaa"), read_copy(path))
    writer.append(JobRetried("not stored yet", ""))
    assert not snapshots.are_ahead_of(path, "aaaaaaaa")
    writer.close()
    for content in (older, b"x" * 5000):
        path.write_bytes(content)
        assert snapshots.are_ahead_of(path, "aaaaaaaa")
