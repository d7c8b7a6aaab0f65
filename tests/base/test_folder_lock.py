"""The lock by which at most one process owns a folder."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.base.folder_lock import SERVER, holder_in_words, holder_of, host_of, owned
from supsup_core.errors import InputError

HOLD = (
    "import sys, time; from pathlib import Path; from orchestrator.base.folder_lock import owned\n"
    "with owned(Path(sys.argv[1])):\n    print('owned', flush=True); time.sleep(60)\n"
)


def test_an_owner_is_known_while_it_owns_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "sweeps" / "small-123456"
    assert (holder_of(folder), host_of(folder)) == (None, None)
    with owned(folder):
        assert host_of(folder) == socket.gethostname()
        assert (folder / "holder").read_text().split()[0] == str(os.getpid())
    assert (holder_of(folder), host_of(folder)) == (None, None)


def test_the_error_names_the_owning_process_and_its_death_releases_the_lock(tmp_path: Path) -> None:
    folder = tmp_path / "small-123456"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "owned\n"
        assert holder_of(folder) == holder.pid
        with (
            pytest.raises(InputError, match=f"small-123456: process {holder.pid} is running this sweep"),
            owned(folder),
        ):
            raise AssertionError("it is owned")
        with (
            pytest.raises(InputError, match=r"is running this server; .*, or run `supsup server` with another folder"),
            owned(folder, SERVER),
        ):
            raise AssertionError("it is owned")
        (folder / "holder").write_text(f"{holder.pid} elsewhere")
        assert holder_in_words(folder) == f"process {holder.pid} on elsewhere"
        (folder / "holder").write_text("")
        assert (holder_of(folder), holder_in_words(folder)) == (-1, "another process")
        with pytest.raises(InputError, match="small-123456: another process is running this sweep"), owned(folder):
            raise AssertionError("it is owned")
        holder.kill()
    assert holder_of(folder) is None
    with owned(folder):
        pass


def test_a_folder_that_cannot_be_created_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "folder"
    with (
        pytest.raises(InputError, match=r"^output: .*cannot be written .*; set output=DIR to a writable folder"),
        owned(folder),
    ):
        raise AssertionError("there is no such folder")
    with (
        pytest.raises(InputError, match=r"^FOLDER: .*cannot be written .*; run `supsup server` with another folder"),
        owned(folder, SERVER),
    ):
        raise AssertionError("there is no such folder")
