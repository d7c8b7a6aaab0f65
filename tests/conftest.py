"""Shared fixtures: real datasets, small problems, sweep files, and the command line."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch
import yaml

from orchestrator.base.output_folder import MLflowFolder, OutputFolder
from orchestrator.records import this_machine
from orchestrator.tracking import mlflow_store
from supsup_core.datasets import Dataset
from supsup_core.methods import Problem, base
from supsup_core.nets import NETS, draw_weights
from supsup_core.tasks import BENCHMARKS
from supsup_core.training.loop import TrainingRecipe
from tests.object_store import ObjectStore
from tests.requirements import missing

torch.set_num_threads(1)
os.environ.setdefault("PYTHONFAULTHANDLER", "1")  # a process that crashes prints where
hypothesis.settings.register_profile("unhurried", deadline=None)  # a busy machine must not fail a test
hypothesis.settings.load_profile("unhurried")

PROGRAM = [sys.executable, "-m", "orchestrator.cli"]

Launch = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of the real datasets. Without SUPSUP_DATA, the test is skipped."""
    named = os.environ.get("SUPSUP_DATA")
    if named is None:
        missing("SUPSUP_DATA is not set; it names the folder that holds mnist/")
    root = Path(named).absolute()
    assert (root / "mnist").is_dir(), f"SUPSUP_DATA={named} has no mnist folder"
    return root


@pytest.fixture(scope="session", autouse=True)
def _fonts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One matplotlib font cache for all tests. Otherwise matplotlib builds a new cache in each test's home folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPLCONFIGDIR", str(tmp_path_factory.getbasetemp().parent / "matplotlib"))
        yield


@pytest.fixture(scope="session")
def digits() -> Dataset:
    """The digits dataset of scikit-learn."""
    return BENCHMARKS["permuted"](base="digits").source().load(None)


@pytest.fixture
def small_problem() -> Problem:
    """LeNet 300-100 on the digits, with few training batches."""
    return Problem(NETS["lenet_300_100"](num_outputs=20), (64,), 10, TrainingRecipe(num_batches=40), seed=3)


@pytest.fixture
def other_weights(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Returns a function. After its call, this process draws other frozen weights from a seed, as another library
    version might."""

    def draw() -> None:
        other = replace(this_machine.this_machine("cpu", 1), numpy="99.0")
        monkeypatch.setattr(this_machine, "this_machine", lambda *_: other)
        monkeypatch.setattr(base, "draw_weights", lambda layers, *how: [-w for w in draw_weights(layers, *how)])

    return draw


SMALL: dict[str, Any] = {
    "name": "small",
    "scenario": "GNu",
    "benchmark": {"name": "permuted", "base": "digits", "num_tasks": 3},
    "net": {"name": "lenet_300_100", "num_outputs": 30},
    "training": {"num_batches": 30},
    "evaluation": {"at": [1, 3]},
    "inference": {"strict_images": 20},
}
"""The settings of a sweep with three short tasks."""

SMALL_NNS: dict[str, Any] = {
    "scenario": "NNs",
    "benchmark": {"name": "permuted", "base": "digits", "num_tasks": 3},
    "training": {"num_batches": 300, "learning_rate": 5e-4},
    "stream": {"segment_batches": 100},
    "inference": {"strict_images": 0},
}
"""The changes of SMALL that make a sweep in scenario NNs."""


@dataclass(frozen=True)
class Result:
    """The exit code and the output of a command."""

    code: int
    out: str
    err: str


@pytest.fixture
def sweep_file(tmp_path: Path) -> Callable[..., Path]:
    """Returns a function that writes SMALL, with changes, to a sweep file."""

    def write(file_name: str = "small.yaml", **changes: Any) -> Path:
        node = {**SMALL, **changes}
        path = tmp_path / file_name
        path.write_text(
            yaml.safe_dump({key: value for key, value in node.items() if value is not None}, sort_keys=False)
        )
        return path

    return write


@pytest.fixture(scope="session")
def object_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """A real S3 server, started once for the whole test session."""
    server = ObjectStore(tmp_path_factory.mktemp("weed"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def give_database(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], None]:
    """Returns a function that copies a ready MLflow database into an output. Building a database would take seconds."""
    built = MLflowFolder(tmp_path_factory.mktemp("built"))
    mlflow_store.create_database(built)

    def give(output: Path) -> None:
        folder = OutputFolder(output).mlflow
        if not folder.database.exists():
            folder.path.mkdir(parents=True, exist_ok=True)
            shutil.copy(built.database, folder.database)

    return give


@pytest.fixture
def supsup(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    give_database: Callable[[Path], None],
) -> Iterator[Callable[..., Result]]:
    """Returns a function that runs a supsup command in this process, in tmp_path, with a separate home folder."""
    from orchestrator.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(mlflow_store, "create_database", lambda folder: give_database(folder.path.parent))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def run(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["supsup", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main.main()
        out, err = capfd.readouterr()
        return Result(int(ended.value.code or 0), out, err)

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)
    logging.getLogger("supsup").handlers.clear()


@pytest.fixture
def launch(tmp_path: Path, give_database: Callable[[Path], None]) -> Launch:
    """Returns a function that starts a supsup command in tmp_path. The command gets a new process session, so that a
    test can kill all its processes."""
    home = tmp_path / "home"
    home.mkdir(exist_ok=True)

    def start(*arguments: object) -> subprocess.Popen[str]:
        if arguments[0] == "sweep":
            (output,) = [str(word)[7:] for word in arguments if str(word).startswith("output=")] or ["runs"]
            give_database(tmp_path / output)
        return subprocess.Popen(
            [*PROGRAM, *map(str, arguments)],
            cwd=tmp_path,
            env={**os.environ, "HOME": str(home)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    return start


@pytest.fixture
def call(launch: Launch) -> Callable[..., tuple[int, str, str]]:
    """Returns a function that runs a supsup command to its end, and returns exit code, standard output and error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        process = launch(*arguments)
        out, err = process.communicate(timeout=280)
        return process.returncode, out, err

    return run
