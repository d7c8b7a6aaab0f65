"""Transfer of sweeps between a storage and several outputs, as on several machines."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.base.environment import describe
from orchestrator.base.folder_lock import owned
from orchestrator.base.output_folder import GroupFolder, OutputFolder
from orchestrator.base.sealed_json import seal, unseal
from orchestrator.execution.launch import launch, take_stock
from orchestrator.records.ledgers.ledger import FencedError, LedgerWriter
from orchestrator.records.ledgers.ledger_file import read_epoch
from orchestrator.records.ledgers.snapshots import Snapshots
from orchestrator.records.object_storage import Storage
from orchestrator.records.rows import ArtifactLost
from orchestrator.sweeps.lookup import read_state
from orchestrator.sweeps.sweep import Sweep, find_sweep, open_sweep
from orchestrator.sweeps.sweep_record import SweepRecord, storage_of
from orchestrator.sweeps.sweep_transfer import (
    fetch,
    fetch_if_stored,
    fetch_newest,
    is_stored,
    publish,
    refresh,
    take_over,
)
from supsup_core.errors import InputError
from tests.local_runs import run_sweep

EVENT = ArtifactLost("", "a file", "of the test")
"""An event that does not change the results of a finished group."""


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(f"file://{tmp_path / 'stored'}", patience=1.0)


@pytest.fixture
def file(sweep_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.chdir(tmp_path)
    return sweep_file()


@pytest.fixture
def stored(file: Path, storage: Storage) -> Sweep:
    """A sweep that was run in the output `first` and uploaded to the storage."""
    sweep = open_sweep(file, ["output=first", f"storage={storage.url}"])
    groups = sweep.plan()
    sweep.save(groups)
    take_over(sweep)
    launch(sweep, take_stock(sweep, groups, describe(sweep.imports_folder), cluster=None), cluster=None)
    publish(sweep, [])
    return sweep


def the_group(sweep: Sweep | SweepRecord) -> GroupFolder:
    (group,) = sweep.folder.groups()
    return group


def fetched(storage: Storage, output: Path, wanted: str | None = None) -> Sweep:
    """Fetches a sweep from the storage into another output, and opens it."""
    folder = OutputFolder(output)
    (name,) = fetch(storage, folder, wanted)
    return find_sweep(folder, name)


def append(sweep: Sweep) -> None:
    """Appends a row to the ledger of the sweep's group, without a new writer epoch."""
    group = the_group(sweep)
    writer = LedgerWriter(group.ledger)
    writer.append(EVENT)
    writer.close()


def num_lost(sweep: Sweep | SweepRecord) -> int:
    return len(read_state(the_group(sweep)).lost)


def test_fetch_copies_the_state_and_artifacts_are_downloaded_when_they_are_read(
    stored: Sweep, storage: Storage, tmp_path: Path
) -> None:
    elsewhere = fetched(storage, tmp_path / "second")
    assert elsewhere.sweep_id == stored.sweep_id
    assert storage_of(elsewhere.output) == storage.url
    assert read_state(the_group(elsewhere)) == read_state(the_group(stored))
    assert not list(elsewhere.output.store.files())
    (group,) = elsewhere.plan()
    for shard in group.shards:
        assert elsewhere.store.get(shard.key).sha256 == stored.store.get(shard.key).sha256
    assert len(list(elsewhere.output.store.files())) == 3


def test_a_prefix_names_a_sweep_and_a_missing_sweep_is_refused(stored: Sweep, storage: Storage, tmp_path: Path) -> None:
    assert fetch(storage, OutputFolder(tmp_path / "second"), "small") == [stored.sweep_id]
    with pytest.raises(InputError, match=rf"large: no such sweep in {storage.url}; choose one of: {stored.sweep_id}"):
        fetch(storage, OutputFolder(tmp_path / "third"), "large")
    assert not (tmp_path / "third").exists()
    with pytest.raises(InputError, match="contains no sweep"):
        fetch(Storage(f"file://{tmp_path / 'nothing'}", 1.0), OutputFolder(tmp_path / "third"), None)


def test_fetch_does_not_touch_an_up_to_date_sweep_and_refuses_to_update_a_running_one(
    stored: Sweep, storage: Storage, tmp_path: Path
) -> None:
    elsewhere = fetched(storage, tmp_path / "second")
    ledger = the_group(elsewhere).ledger
    before = ledger.stat()
    with owned(elsewhere.folder.path):
        fetch(storage, elsewhere.output, None)  # nothing to fetch
    assert ledger.stat().st_ino == before.st_ino
    append(stored)
    publish(stored, [])
    with owned(elsewhere.folder.path), pytest.raises(InputError, match=stored.sweep_id):
        fetch(storage, elsewhere.output, None)
    fetch(storage, elsewhere.output, None)
    assert num_lost(elsewhere) == 1


def test_an_older_ledger_with_rows_that_were_never_stored_is_set_aside(
    stored: Sweep, storage: Storage, tmp_path: Path
) -> None:
    elsewhere = fetched(storage, tmp_path / "second")
    append(elsewhere)  # this row is never uploaded
    take_over(stored)
    for _ in range(2):
        append(stored)
    publish(stored, [])
    fetch(storage, elsewhere.output, None)
    assert num_lost(elsewhere) == 2
    assert [path.name for path in the_group(elsewhere).corrupt_ledgers if path.suffix == ".corrupt0"] == [
        "ledger.sqlite.corrupt0"
    ]


def test_after_a_damaged_snapshot_the_previous_one_is_used(
    stored: Sweep, storage: Storage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    take_over(stored)
    append(stored)
    publish(stored, [])
    folder = storage / the_group(stored).stored_name
    newest, before, *_ = Snapshots(folder).ids()
    folder.write(newest.file_name, b"damaged")
    elsewhere = fetched(storage, tmp_path / "second")
    assert num_lost(elsewhere) == 0
    assert read_state(the_group(elsewhere)).status == "done"
    assert "trying the previous snapshot" in caplog.text
    assert "no snapshot of this ledger is intact" not in caplog.text
    folder.write(before.file_name, b"damaged too")
    third = fetched(storage, tmp_path / "third")
    assert third.folder.groups() == []
    assert before.file_name in caplog.text
    assert "no snapshot of this ledger is intact" in caplog.text


def test_a_takeover_fetches_the_rows_of_the_other_writer_and_fences_it(
    stored: Sweep, storage: Storage, tmp_path: Path
) -> None:
    elsewhere = fetched(storage, tmp_path / "second")
    take_over(elsewhere)
    append(elsewhere)
    publish(elsewhere, [])
    with pytest.raises(FencedError, match="another process has taken over"):
        publish(stored, [])  # the replaced writer
    take_over(stored)  # the first machine starts again and takes the sweep back
    assert num_lost(stored) == 1
    assert read_epoch(the_group(stored).ledger) > read_epoch(the_group(elsewhere).ledger)
    with pytest.raises(FencedError, match="another process has taken over"):
        publish(elsewhere, [])
    publish(stored, [])
    third = fetched(storage, tmp_path / "third")
    assert num_lost(third) == 1


def test_a_takeover_fails_if_another_writer_keeps_storing_snapshots(
    stored: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[int] = []

    def always_newer(*_: object) -> None:
        tries.append(1)
        raise FencedError("another process has taken over this ledger")

    monkeypatch.setattr(Snapshots, "put", always_newer)
    with pytest.raises(FencedError):
        take_over(stored)
    assert 1 < len(tries) < 10


def test_a_takeover_uploads_artifacts_that_only_the_output_has(
    file: Path, storage: Storage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A sweep that began without a storage continues with a storage."""
    alone = open_sweep(file, [])
    run_sweep(alone)
    sweep = open_sweep(file, [f"storage={storage.url}"])
    sweep.save(sweep.plan())
    assert not is_stored(alone)
    with caplog.at_level(logging.INFO, "supsup"):
        take_over(sweep)
    assert "uploaded 8 artifacts" in caplog.text
    assert is_stored(sweep)
    elsewhere = fetched(storage, tmp_path / "second")
    for key in (path.stem for path in sweep.output.store.files()):
        assert elsewhere.store.get(key).sha256 == sweep.store.get(key).sha256


def test_a_report_is_stored_with_the_sweep(stored: Sweep, storage: Storage) -> None:
    stored.folder.report.mkdir()
    page = stored.folder.report / "report.html"
    page.write_text("a page")
    publish(stored, [page])
    assert storage.read(f"{stored.folder.stored_name}/report/report.html") == b"a page"


def test_a_refresh_fetches_newer_states_from_the_storage(stored: Sweep, storage: Storage, tmp_path: Path) -> None:
    elsewhere = fetched(storage, tmp_path / "second")
    append(stored)
    publish(stored, [])
    refresh(elsewhere.output, "another-123456")
    assert num_lost(elsewhere) == 0
    refresh(elsewhere.output)
    assert num_lost(elsewhere) == 1
    refresh(OutputFolder(tmp_path / "third"))  # has no effect on an output without a storage


def test_the_newest_sweep_of_a_storage_or_of_an_output_is_fetched(
    stored: Sweep, storage: Storage, file: Path, tmp_path: Path
) -> None:
    other = open_sweep(file, ["output=other", "name=other", f"storage={storage.url}"])
    other.save(other.plan())
    empty = OutputFolder(tmp_path / "second")
    assert fetch_newest(storage.url, empty, None).sweep_id == other.sweep_id
    assert fetch_newest(storage.url, empty, "small").sweep_id == stored.sweep_id
    append(stored)
    publish(stored, [])
    found = fetch_newest(None, empty, "small")
    assert num_lost(found) == 1
    with pytest.raises(InputError, match="no such sweep"):
        fetch_newest(f"{storage.url}/", empty, "large")


def test_a_sweep_that_was_never_uploaded_is_found_in_its_output(stored: Sweep, storage: Storage, file: Path) -> None:
    unstored = open_sweep(file, ["output=first", "name=unstored"])
    unstored.folder.path.mkdir(parents=True)
    node, _ = unseal(stored.folder.sweep_file.read_bytes())
    node |= {"sweep_id": unstored.sweep_id, "config": node["config"] | {"name": "unstored"}}
    unstored.folder.sweep_file.write_bytes(seal(node))
    assert fetch_newest(storage.url, stored.output, "unstored").config["name"] == "unstored"


def test_a_newer_state_that_cannot_be_fetched_is_an_error_and_not_the_older_state(
    stored: Sweep, storage: Storage, tmp_path: Path
) -> None:
    elsewhere = fetched(storage, tmp_path / "second")
    append(stored)
    publish(stored, [])
    for url, wanted in ((None, "small"), (storage.url, None)):
        with owned(elsewhere.folder.path), pytest.raises(InputError, match="is running this sweep"):
            fetch_newest(url, elsewhere.output, wanted)
    assert num_lost(fetch_newest(None, elsewhere.output, "small")) == 1


def test_an_output_of_one_storage_is_not_updated_from_another(stored: Sweep, storage: Storage, tmp_path: Path) -> None:
    copy = Storage(f"file://{tmp_path / 'copy'}", 1.0)
    shutil.copytree(tmp_path / "stored", tmp_path / "copy")
    with pytest.raises(InputError, match=f"{storage.url}, so it cannot use {copy.url}"):
        fetch_newest(copy.url, stored.output, "small")


def test_a_sweep_is_fetched_only_if_its_storage_has_it(
    file: Path, storage: Storage, stored: Sweep, tmp_path: Path
) -> None:
    elsewhere = open_sweep(file, [f"output={tmp_path / 'second'}", f"storage={storage.url}"])
    assert fetch_if_stored(elsewhere)
    assert read_state(the_group(elsewhere)) == read_state(the_group(stored))
    assert not fetch_if_stored(open_sweep(file, [f"output={tmp_path / 'third'}", "name=new", f"storage={storage.url}"]))
    assert not fetch_if_stored(open_sweep(file, [f"output={tmp_path / 'third'}"]))
