"""A moved or copied output is whole in its new place, and no command reads or writes the old place."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest

from orchestrator.base.output_folder import OutputFolder
from orchestrator.tracking.mlflow_address import tracking_uri
from tests.conftest import Result
from tests.nns.test_fork import NNS

Command = Callable[..., Result]
Call = Callable[..., tuple[int, str, str]]


class Watch:
    """Records the paths of files that this process opens, lists, creates, renames or deletes below a folder."""

    def __init__(self) -> None:
        self.folder = ""
        self.seen: set[str] = set()
        sys.addaudithook(self._note)

    def _note(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.folder and (event in ("open", "sqlite3.connect") or event.startswith(("os.", "shutil."))):
            paths = [os.fsdecode(one) for one in arguments if isinstance(one, str | bytes | os.PathLike)]
            self.seen |= {path for path in paths if self.folder in path}


@pytest.fixture(scope="module")
def watch() -> Watch:
    return Watch()  # an audit hook cannot be removed


@pytest.fixture
def watched(watch: Watch) -> Iterator[Watch]:
    """A watch that ends with the test."""
    yield watch
    watch.folder = ""


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def read(supsup: Command, output: Path) -> None:
    """Runs commands that only read an output."""
    for words in (["status"], ["fsck"], ["gc"], ["decisions", "streams"], ["logs", "small"]):
        found = supsup(*words, f"output={output}")
        assert found.code == 0, (words, found.err)


def check_mlflow(output: Path) -> None:
    """Every MLflow run of the output has its artifacts in the output."""
    client = mlflow.MlflowClient(tracking_uri(OutputFolder(output).mlflow))
    home = OutputFolder(output).mlflow.artifacts.as_uri()
    experiments = [one for one in client.search_experiments() if one.name in ("small", "streams")]
    assert [one.artifact_location for one in experiments] == [home, home]
    found = client.search_runs([one.experiment_id for one in experiments])
    assert all(run.info.artifact_uri.startswith(f"{home}/") for run in found)
    assert sum(any(file.path == "report" for file in client.list_artifacts(run.info.run_id)) for run in found) == 2


def test_an_output_is_moved_and_then_copied(
    supsup: Command, call: Call, sweep_file: Callable[..., Path], tmp_path: Path, watched: Watch
) -> None:
    first, second, third = tmp_path / "first-place", tmp_path / "second", tmp_path / "third"
    for file in (sweep_file(), sweep_file("nns.yaml", **NNS, name="streams")):
        # another process, because MLflow remembers where each run has its artifacts
        code, _, err = call("sweep", file, "--local", f"output={first}")
        assert code == 0, err
    named = {name for name, data in content(first).items() if str(first).encode() in data}
    assert named == {"mlflow/mlflow.db"}
    first.rename(second)
    watched.folder = str(first)
    read(supsup, second)
    for words in (
        ["evaluate", "small", "--local", "inference.objective=energy"],
        ["resume", "streams", "--local"],
        ["report", "streams"],
    ):
        assert supsup(*words, f"output={second}").code == 0, words
    check_mlflow(second)
    assert not first.exists()
    assert [name for name, data in content(second).items() if str(first).encode() in data] == []
    shutil.copytree(second, third)
    before = content(second)
    watched.folder = str(second)
    read(supsup, third)
    assert watched.seen == set()
    watched.folder = ""
    code, _, err = call("evaluate", "small", "--local", "inference.objective=max_logit", f"output={third}")
    assert code == 0, err
    check_mlflow(third)
    assert content(second) == before
