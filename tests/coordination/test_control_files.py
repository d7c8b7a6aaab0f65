"""Control files, by which other processes request a pause, a stop or cancelled tasks."""

from __future__ import annotations

from pathlib import Path

from orchestrator.base.output_folder import OutputFolder
from orchestrator.coordination.control_files import CancelFile, Requests


def test_files_request_a_pause_a_stop_and_cancelled_tasks(tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path).sweep("small-123456").group("0123456789ab")
    requests = Requests.from_files(folder)
    assert (requests.pause(), requests.stop(), requests.cancel()) == (False, False, frozenset())
    CancelFile(folder.cancel_file).add([3])
    folder.sweep.pause_file.touch()
    folder.stop_file.touch()
    assert (requests.pause(), requests.stop(), requests.cancel()) == (True, True, {3})


def test_tasks_are_added_to_a_cancel_file_and_removed_from_it(tmp_path: Path) -> None:
    file = CancelFile(tmp_path / "group" / "cancel")
    file.remove([1])
    file.add([3, 1])
    file.add([3, 2])
    assert file.read() == {1, 2, 3}
    file.remove([3])
    assert file.read() == {1, 2}
    file.remove([])
    assert file.read() == set()
    assert not file.path.exists()


def test_lines_that_are_not_numbers_are_ignored(tmp_path: Path) -> None:
    (tmp_path / "cancel").write_text("1\n\nall\n-2\n3")
    assert CancelFile(tmp_path / "cancel").read() == {1, 3}
