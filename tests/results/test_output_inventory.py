"""The inventory of an output: unreferenced and damaged files. tests/integration runs gc and fsck."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.base.output_folder import OutputFolder
from orchestrator.records.artifact_store import ArtifactStore
from orchestrator.records.ledger_file import snapshot_path
from orchestrator.results.output_inventory import Damage, damages, leftovers
from orchestrator.sweeps.sweep import Sweep, open_sweep
from supsup_core.errors import InputError
from tests.local_runs import run_sweep


@pytest.fixture
def sweep(sweep_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Sweep:
    """A finished sweep with three tasks and four evaluations."""
    monkeypatch.chdir(tmp_path)
    found = open_sweep(sweep_file(), [])
    run_sweep(found)
    return found


def reasons(output: OutputFolder) -> dict[str, list[str]]:
    """Returns the names of the unreferenced files, by the reason why they are unreferenced."""
    found: dict[str, list[str]] = {}
    for item in leftovers(output):
        found.setdefault(item.why, []).append(Path(item.name).name)
    return found


def found_damages(output: OutputFolder) -> list[Damage]:
    return damages(output, lambda done, of: None)


def damage(path: Path) -> None:
    """Flips a bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_every_file_of_a_finished_sweep_is_referenced_and_intact(sweep: Sweep) -> None:
    assert leftovers(sweep.output) == []
    progress: list[tuple[int, int]] = []
    assert damages(sweep.output, lambda done, of: progress.append((done, of))) == []
    assert progress == [(number, 7) for number in range(1, 8)]


def test_each_unreferenced_file_has_a_reason_and_can_be_removed(sweep: Sweep) -> None:
    output = sweep.output
    store = output.store
    (group,) = sweep.plan()
    old = open_sweep(sweep.file, ["name=old", "training.num_batches=31"])
    run_sweep(old)
    assert leftovers(output) == []
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
        "no sweep references it": 7,
        "set aside as damaged": 1,
        "a lock file of a claim": 1,
        "its task has been trained": 1,
        "a temporary file of an interrupted write": 1,
    }
    assert found["its task has been trained"] == [checkpoint.name]
    for item in leftovers(output):
        item.remove()
    assert leftovers(output) == []
    assert found_damages(output) == []


def test_a_checkpoint_is_kept_until_its_task_is_trained(sweep: Sweep) -> None:
    (group,) = sweep.plan()
    output, key = sweep.output, group.shards[2].key
    ArtifactStore(output.store).delete(key)
    checkpoint = output.store.unfinished.file(key)
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(b"x")
    assert leftovers(output) == []
    run_sweep(sweep)
    assert reasons(output) == {"its task has been trained": [checkpoint.name]}


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


def test_while_a_sweep_cannot_be_read_no_file_counts_as_unreferenced(sweep: Sweep) -> None:
    sweep.folder.sweep_file.write_text("{")
    with pytest.raises(InputError, match="damaged"):
        leftovers(sweep.output)
    (found,) = [damage for damage in found_damages(sweep.output) if damage.path == sweep.folder.sweep_file]
    assert found.reason.startswith("is damaged")
