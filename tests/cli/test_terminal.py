"""Standard output and standard error: characters that an encoding lacks, and streams that are lost."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.cli.terminal import lossy_streams
from tests.conftest import PROGRAM


class Broken(io.StringIO):
    """A stream whose reader has ended."""

    def write(self, text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")


def test_a_lost_stream_is_reported_once_and_the_other_still_works(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdout", Broken())
    with lossy_streams():
        print("first")
        print("second")
        print("told", file=sys.stderr)
    assert caplog.text.count("standard output cannot be written any more (Broken pipe)") == 1
    assert capsys.readouterr().err == "told\n"
    assert isinstance(sys.stdout, Broken)  # the block restores the stream


@pytest.mark.parametrize("encoding", ["ascii", pytest.param("latin-1", marks=pytest.mark.long)])
def test_characters_that_the_terminal_lacks_are_printed_in_ascii(
    sweep_file: Callable[..., Path], tmp_path: Path, encoding: str
) -> None:
    file = sweep_file(variants={"基线": {"scenario": "GG"}})
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "HOME": str(tmp_path)}
    for verb in (["plan", str(file)], ["sweep", str(file), "--local"], ["status"], ["report"]):
        found = subprocess.run([*PROGRAM, *verb], capture_output=True, cwd=tmp_path, env=environment, check=False)
        assert found.returncode == 0, found.stderr
        assert b"Traceback" not in found.stderr
    assert b"\\u57fa\\u7ebf GG" in found.stdout


@pytest.mark.parametrize("target", ["a closed pipe", "/dev/full"])
def test_a_sweep_whose_output_is_lost_ends_like_any_other(
    sweep_file: Callable[..., Path], tmp_path: Path, target: str
) -> None:
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "HOME": str(tmp_path)}
    command = [*PROGRAM, "sweep", str(sweep_file()), "--local"]
    if target == "/dev/full":
        stream = os.open(target, os.O_WRONLY)
    else:
        reader, stream = os.pipe()
        os.close(reader)
    found = subprocess.run(command, stdout=stream, stderr=subprocess.PIPE, cwd=tmp_path, env=environment, check=False)
    os.close(stream)
    assert found.returncode == 0, found.stderr
    assert b"standard output cannot be written any more" in found.stderr
    assert b"Traceback" not in found.stderr
    assert len(list(tmp_path.glob("runs/sweeps/*/report/report.html"))) == 1
    assert len(list(tmp_path.glob("runs/mlflow/artifacts/*/*/report/report.html"))) == 1


def test_a_command_whose_reader_ends_says_nothing(sweep_file: Callable[..., Path], tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "HOME": str(tmp_path)}
    reader, stream = os.pipe()
    os.close(reader)
    command = [*PROGRAM, "plan", str(sweep_file())]
    found = subprocess.run(command, stdout=stream, stderr=subprocess.PIPE, cwd=tmp_path, env=environment, check=False)
    os.close(stream)
    assert (found.returncode, found.stderr) == (1, b"")


def test_a_full_disk_behind_a_command_is_told_in_one_line(sweep_file: Callable[..., Path], tmp_path: Path) -> None:
    command = [*PROGRAM, "plan", str(sweep_file())]
    with open("/dev/full", "wb") as stream:
        found = subprocess.run(command, stdout=stream, stderr=subprocess.PIPE, cwd=tmp_path, check=False)
    assert found.returncode == 1
    assert found.stderr.startswith(b"supsup: standard output cannot be written (No space left on device)")
    assert len(found.stderr.splitlines()) == 1


def test_the_users_matplotlib_does_not_disturb_a_sweep(sweep_file: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nnonsense.key: 3\n")
    environment = {**os.environ, "MPLBACKEND": "one of a notebook", "HOME": str(tmp_path)}
    command = [*PROGRAM, "sweep", str(sweep_file()), "--local"]
    found = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert found.returncode == 0, found.stderr
    assert "matplotlib" not in found.stderr
    assert len(list(tmp_path.glob("runs/sweeps/*/report/*.png"))) == 2
