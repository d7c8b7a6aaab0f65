"""The paths of an output folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.base.output_folder import ArtifactFolder, MLflowFolder, OutputFolder, stored_sweep_ids

KEY = "ab12" * 8


@pytest.fixture
def output(tmp_path: Path) -> OutputFolder:
    return OutputFolder(tmp_path / "runs")


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_paths_of_a_group_lead_back_to_its_sweep_and_output(output: OutputFolder) -> None:
    group = output.sweep("small-123456").group("0123456789ab")
    assert group.ledger.relative_to(output.path).as_posix() == "sweeps/small-123456/groups/0123456789ab/ledger.sqlite"
    assert (group.group_id, group.sweep.sweep_id) == ("0123456789ab", "small-123456")
    assert group.sweep == output.sweep("small-123456")
    assert group.sweep.output == output
    assert group.stored_name == "sweeps/small-123456/groups/0123456789ab"
    assert group.stored_masks_name == f"{group.stored_name}/masks"
    assert group.masks.path == group.path / "masks"


def test_sweeps_and_groups_are_found_by_their_files(output: OutputFolder) -> None:
    assert not output.exists
    first, second, third = (output.sweep(name) for name in ("a-1", "b-2", "c-3"))
    touch(second.sweep_file)
    touch(first.sweep_file)
    touch(third.group("g").ledger)
    fourth = output.sweep("d-4")
    touch(fourth.log_file).write_text("a message")
    unused = output.sweep("e-5")
    for file in (unused.log_file, unused.path / "lock", unused.path / ".sweep.json.partial"):
        touch(file)
    (output.path / "sweeps" / "no sweep").mkdir()
    assert output.exists
    assert output.sweeps() == [first, second, third]
    assert output.all_sweep_folders() == [first, second, third, fourth]
    touch(first.group("y").ledger)
    touch(first.group("x").path / "ledger.previous.sqlite")
    touch(first.group("z").path / "ledger.last-commit")
    (first.path / "groups" / "empty").mkdir()
    assert [group.group_id for group in first.groups()] == ["x", "y", "z"]
    touch(first.group("x").stop_file)
    assert list(first.stop_files()) == [first.group("x").stop_file]


def test_the_files_of_a_ledger_and_the_corrupt_ones_among_them_are_listed(output: OutputFolder) -> None:
    group = output.sweep("a-1").group("g")
    corrupt = "ledger.sqlite.corrupt.0"
    names = ["ledger.sqlite", "ledger.sqlite-wal", "ledger.previous.sqlite", "ledger.last-commit", corrupt]
    for name in [*names, "stop"]:
        touch(group.path / name)
    assert {path.name for path in group.ledger_files} == set(names)
    assert [path.name for path in group.corrupt_ledgers] == [corrupt]


def test_artifacts_are_found_by_key_and_by_number(tmp_path: Path) -> None:
    folder = ArtifactFolder(tmp_path)
    assert folder.name(KEY) == f"ab/{KEY}.safetensors"
    assert folder.key_of(folder.name(KEY)) == KEY
    for name in ("ab/other.txt", f"{KEY}.safetensors", f"corrupt/{KEY}.0.safetensors", f"a/b/ab/{KEY}.safetensors"):
        assert folder.key_of(name) is None
    for path in (folder.file(KEY), folder.file(f"{KEY}-000000000001"), folder.unfinished.file(KEY)):
        touch(path)
    touch(tmp_path / "cd")  # a file where a folder is expected
    (tmp_path / "ab" / "dead.safetensors").symlink_to(tmp_path / "nowhere")
    assert set(folder.files()) == {folder.file(KEY), folder.file(f"{KEY}-000000000001")}
    assert list(folder.numbered(KEY)) == [folder.file(f"{KEY}-000000000001")]
    assert list(folder.unfinished.files()) == [folder.unfinished.file(KEY)]


def test_a_corrupt_file_gets_a_name_that_is_free(tmp_path: Path) -> None:
    folder = ArtifactFolder(tmp_path)
    names = [touch(folder.corrupt_file(KEY)).name for _ in range(3)]
    assert names == [f"{KEY}.{number}.safetensors" for number in range(3)]
    assert len(list(folder.corrupt_files())) == 3
    claim = touch(folder.claim_file(KEY))
    assert list(folder.claim_files()) == [claim]


def test_partial_databases_are_distinguished_from_the_finished_one(tmp_path: Path) -> None:
    folder = MLflowFolder(tmp_path)
    touch(folder.database)
    partial = touch(folder.partial_database(3))
    assert list(folder.partial_databases()) == [partial]


def test_hidden_files_are_leftovers_in_the_store_and_in_sweeps(output: OutputFolder) -> None:
    hidden = touch(output.store.path / "ab" / ".file.abcdefgh")
    touch(output.path / "mlflow" / ".file")
    assert list(output.hidden_files()) == [hidden]


def test_the_sweeps_of_a_storage_are_those_with_a_sweep_json() -> None:
    names = ["sweeps/b-2/sweep.json", "sweeps/a-1/sweep.json", "sweeps/c-3/groups/g/ledger", "store/ab/sweep.json/x"]
    assert stored_sweep_ids([*names, "sweep.json", "sweeps/a-1/report/sweep.json"]) == ["a-1", "b-2"]
