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
    folder = OutputFolder(output).mlflow
    client = mlflow.MlflowClient(tracking_uri(folder))
    experiments = client.search_experiments()
    assert {one.name: one.artifact_location for one in experiments if one.name != "Default"} == dict.fromkeys(
        ("small", "streams"), folder.artifacts.as_uri()
    )
    found = client.search_runs([one.experiment_id for one in experiments])
    for run in found:
        assert run.info.artifact_uri == (folder.artifacts / run.info.run_id / "artifacts").as_uri()
    sweeps = [run.info.run_id for run in found if run.data.tags["supsup.kind"] == "sweep"]
    assert [(folder.artifacts / run_id / "artifacts" / "report").is_dir() for run_id in sweeps] == [True, True]


@pytest.mark.parametrize("thorough", [False, pytest.param(True, marks=pytest.mark.long)])
def test_an_output_is_moved_and_then_copied(
    supsup: Command, call: Call, sweep_file: Callable[..., Path], tmp_path: Path, watched: Watch, thorough: bool
) -> None:
    """Commands that write to MLflow are other processes, because MLflow remembers where each run has its artifacts."""
    first, second, third = tmp_path / "first-place", tmp_path / "second", tmp_path / "third"
    for file in (sweep_file(), sweep_file("nns.yaml", **NNS, name="streams")):
        assert supsup("sweep", file, "--local", f"output={first}").code == 0
    named = {name for name, data in content(first).items() if str(first).encode() in data}
    assert named == {"mlflow/mlflow.db"}
    first.rename(second)
    watched.folder = str(first)
    read(supsup, second)
    written = [["evaluate", "small", "--local", "inference.objective=energy"]]
    written += [["resume", "streams", "--local"], ["report", "streams"]] if thorough else []
    for words in written:
        code, _, err = call(*words, f"output={second}")
        assert code == 0, (words, err)
    check_mlflow(second)
    assert watched.seen == set()
    assert not first.exists()
    assert [name for name, data in content(second).items() if str(first).encode() in data] == []
    shutil.copytree(second, third)
    before = content(second)
    watched.folder = str(second)
    read(supsup, third)
    if thorough:
        code, _, err = call("evaluate", "small", "--local", "inference.objective=max_logit", f"output={third}")
        assert code == 0, err
        check_mlflow(third)
    assert watched.seen == set()
    assert content(second) == before
