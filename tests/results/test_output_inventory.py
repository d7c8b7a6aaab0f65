"""The inventory of an output: unreferenced and damaged files. tests/integration runs gc and fsck."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.base import folder_lock
from orchestrator.base.output_folder import OutputFolder
from orchestrator.records.artifact_store import ArtifactStore
from orchestrator.records.ledgers.ledger import LedgerReader, open_ledger
from orchestrator.records.ledgers.ledger_file import snapshot_path
from orchestrator.records.rows import ArtifactLost, GroupPlanned, LaunchEnded
from orchestrator.results.leftovers import Leftover, leftovers, needs
from orchestrator.results.output_inventory import Damage, verify_output
from orchestrator.sweeps.sweep import Sweep, open_sweep
from orchestrator.sweeps.sweep_record import restore_marker
from supsup_core.errors import InputError, SupSupError
from tests.local_runs import run_sweep


@pytest.fixture
def sweep(sweep_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Sweep:
    """A finished sweep with three tasks and four evaluations."""
    monkeypatch.chdir(tmp_path)
    found = open_sweep(sweep_file(), [])
    run_sweep(found)
    return found


def unneeded(output: OutputFolder) -> list[Leftover]:
    return leftovers(output, needs(output))


def reasons(output: OutputFolder) -> dict[str, list[str]]:
    """Returns the names of the unreferenced files, by the reason why they are unreferenced."""
    found: dict[str, list[str]] = {}
    for item in unneeded(output):
        found.setdefault(item.why, []).append(Path(item.name).name)
    return found


def found_damages(output: OutputFolder) -> list[Damage]:
    return verify_output(output, lambda done, of: None).damages


def group_planned(sweep: Sweep) -> GroupPlanned:
    """Returns the row with which a launch of the sweep's group begins."""
    (group,) = sweep.folder.groups()
    with LedgerReader(group.ledger) as reader:
        return next(row.event for row in reader.rows() if isinstance(row.event, GroupPlanned))


def damage(path: Path) -> None:
    """Flips a bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_every_file_of_a_finished_sweep_is_referenced_and_intact(sweep: Sweep) -> None:
    assert unneeded(sweep.output) == []
    progress: list[tuple[int, int]] = []
    assert verify_output(sweep.output, lambda done, of: progress.append((done, of))) == ([], [])
    assert progress == [(number, 8) for number in range(1, 9)]


def test_each_unreferenced_file_has_a_reason_and_can_be_removed(sweep: Sweep) -> None:
    output = sweep.output
    store = output.store
    (group,) = sweep.plan()
    old = open_sweep(sweep.file, ["name=old", "training.num_batches=31"])
    run_sweep(old)
    assert unneeded(output) == []
    shutil.rmtree(old.folder.path)
    corrupt = store.corrupt_file("0123456789abcdef")
    claim = store.claim_file("0123456789abcdef")
    checkpoint = store.unfinished.file(group.shards[0].key)
    partial = output.path / "sweeps" / ".sweep.json.k3x_9a0b"
    for path in (corrupt, claim, checkpoint, partial):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 100)
    found = reasons(output)
    assert {why: len(names) for why, names in found.items()} == {
        "result that no sweep references": 8,
        "damaged file that was moved aside": 1,
        "lock file of a claim": 1,
        "checkpoint of a task that has been trained": 1,
        "temporary file of an interrupted write": 1,
    }
    assert found["checkpoint of a task that has been trained"] == [checkpoint.name]
    for item in unneeded(output):
        item.discard(output.trash / "today")
    assert unneeded(output) == []
    assert found_damages(output) == []


def test_a_checkpoint_is_kept_until_its_task_is_trained(sweep: Sweep) -> None:
    (group,) = sweep.plan()
    output, key = sweep.output, group.shards[2].key
    ArtifactStore(output.store).delete(key)
    checkpoint = output.store.unfinished.file(key)
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(b"x")
    assert unneeded(output) == []
    run_sweep(sweep)
    assert reasons(output) == {"checkpoint of a task that has been trained": [checkpoint.name]}


def test_each_damaged_or_missing_file_names_the_sweeps_that_recompute_it(sweep: Sweep) -> None:
    (group,) = sweep.plan()
    store = sweep.output.store
    first, second, _ = (store.file(shard.key) for shard in group.shards)
    evaluation = store.file(group.evaluations[0].key)
    damage(first)
    second.unlink()
    damage(evaluation)
    found = {damage.path: damage for damage in found_damages(sweep.output)}
    assert set(found) == {first, second, evaluation}
    assert found[second].reason == "missing"
    assert "do not match" in found[first].reason
    for path in (first, second):
        assert [record.sweep_id for record in found[path].sweeps] == [sweep.sweep_id]
    assert found[evaluation].sweeps == ()  # no sweep needs the file, because its counts are in the ledger
    assert found[first].key == group.shards[0].key


def test_a_lost_file_is_missing_until_it_is_recomputed_even_if_the_launch_that_found_it_lost_was_killed(
    sweep: Sweep,
) -> None:
    (group,) = sweep.plan()
    key = group.shards[0].key
    sweep.store.path(key).unlink()
    with contextlib.closing(open_ledger(sweep.folder.groups()[0].ledger).writer) as writer:
        writer.append(ArtifactLost(key, str(sweep.store.path(key)), "missing", 0))
        writer.append(LaunchEnded("failed"))
        writer.append(group_planned(sweep))  # the next launch was killed as well
    (missing,) = found_damages(sweep.output)
    assert (missing.key, missing.reason) == (key, "missing")
    assert [record.sweep_id for record in missing.sweeps] == [sweep.sweep_id]
    run_sweep(sweep)
    assert found_damages(sweep.output) == []


def test_a_sweep_whose_last_launch_was_killed_is_named(sweep: Sweep) -> None:
    def interrupted() -> list[str]:
        return [record.sweep_id for record in verify_output(sweep.output, lambda done, of: None).interrupted]

    assert interrupted() == []
    with contextlib.closing(open_ledger(sweep.folder.groups()[0].ledger).writer) as writer:
        writer.append(group_planned(sweep))
    assert interrupted() == [sweep.sweep_id]
    with folder_lock.owned(sweep.folder.path):
        assert interrupted() == []  # a process runs the sweep
    run_sweep(sweep)
    assert interrupted() == []


def test_a_damaged_ledger_is_found_and_missing_files_are_found_with_its_snapshot(sweep: Sweep) -> None:
    (group,) = sweep.plan()
    ledger = sweep.folder.group(group.group_id).ledger
    shutil.copy(ledger, snapshot_path(ledger))
    ledger.write_bytes(ledger.read_bytes()[:5000])
    missing = sweep.output.store.file(group.shards[1].key)
    missing.unlink()
    found = {damage.path: damage for damage in found_damages(sweep.output)}
    assert set(found) == {ledger, missing}
    assert [record.sweep_id for record in found[ledger].sweeps] == [sweep.sweep_id]


def swap(first: Path, second: Path) -> None:
    """Exchanges two files."""
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)


Spoil = Callable[[Sweep, Sweep], None]
"""Spoils a file of the first sweep. The second sweep is another sweep of the same output."""

SPOILED: dict[str, tuple[Spoil, str]] = {
    "a bit of sweep.json": (lambda sweep, other: damage(sweep.folder.sweep_file), "damaged"),
    "an empty sweep.json": (lambda sweep, other: sweep.folder.sweep_file.write_text("") and None, "damaged"),
    "no sweep.json": (lambda sweep, other: sweep.folder.sweep_file.unlink(), "is missing"),
    "another sweep's sweep.json": (
        lambda sweep, other: swap(sweep.folder.sweep_file, other.folder.sweep_file),
        "belongs to the sweep",
    ),
    "a renamed folder": (
        lambda sweep, other: sweep.folder.path.rename(sweep.output.path / "sweeps" / "keep") and None,
        "rename the folder back to small-",
    ),
    "a copied folder": (
        lambda sweep, other: shutil.copytree(sweep.folder.path, sweep.output.path / "sweeps" / "copy") and None,
        "delete the folder if it is a copy",
    ),
    "no ledger": (lambda sweep, other: the_ledger(sweep).unlink(), "the ledger is missing"),
    "an empty ledger": (lambda sweep, other: the_ledger(sweep).write_bytes(b"") and None, "its last rows are lost"),
    "a damaged ledger": (lambda sweep, other: the_ledger(sweep).write_bytes(b"x" * 5000) and None, "ledger is damaged"),
    "another group's ledger": (lambda sweep, other: swap(the_ledger(sweep), the_ledger(other)), "training group"),
    "no group folder": (
        lambda sweep, other: shutil.rmtree(the_ledger(sweep).parent),
        "the ledger is missing",
    ),
    "no marker": (lambda sweep, other: sweep.output.marker.unlink(), "supsup-output.json: is missing"),
    "a bit of the marker": (lambda sweep, other: damage(sweep.output.marker), "supsup-output.json: is damaged"),
}


def the_ledger(sweep: Sweep) -> Path:
    """Returns the ledger of a sweep's only training group, without a -wal."""
    (group,) = sweep.plan()
    return sweep.folder.group(group.group_id).ledger


@pytest.mark.parametrize("spoiled", SPOILED)
def test_while_a_sweep_is_not_accounted_for_nothing_counts_as_a_leftover(sweep: Sweep, spoiled: str) -> None:
    other = open_sweep(sweep.file, ["name=other", "training.num_batches=31"])
    run_sweep(other)
    spoil, words = SPOILED[spoiled]
    spoil(sweep, other)
    with pytest.raises(SupSupError, match=words):
        unneeded(sweep.output)


@pytest.mark.parametrize("spoiled", [name for name in SPOILED if "marker" not in name])
def test_each_such_fault_is_found(sweep: Sweep, spoiled: str) -> None:
    other = open_sweep(sweep.file, ["name=other", "training.num_batches=31"])
    run_sweep(other)
    spoil, _ = SPOILED[spoiled]
    spoil(sweep, other)
    assert found_damages(sweep.output)


def test_a_marker_is_written_again_from_the_records_of_the_sweeps(sweep: Sweep) -> None:
    before = sweep.output.marker.read_bytes()
    assert not restore_marker(sweep.output)
    damage(sweep.output.marker)
    assert restore_marker(sweep.output)
    assert sweep.output.marker.read_bytes() == before
    damage(sweep.output.marker)
    damage(sweep.folder.sweep_file)
    with pytest.raises(InputError, match="do not tell whether it has a storage"):
        restore_marker(sweep.output)
