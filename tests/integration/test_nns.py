"""NNs runs on real Ray workers, started, interrupted and resumed by commands."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import PROGRAM, SMALL
from tests.outputs import nns_science, the_ledger, wait_for

Call = Callable[..., tuple[int, str, str]]

NNS: dict[str, Any] = {
    "scenario": "NNs",
    "benchmark": {"name": "permuted", "base": "digits", "num_tasks": 6},
    "training": {"num_batches": 600, "learning_rate": 5e-4},
    "stream": {"segment_batches": 100},
    "evaluation": {"at": [2, 6]},
    "inference": {"strict_images": 0},
}


@pytest.fixture(scope="module")
def wanted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of the undisturbed reference run."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "small.yaml").write_text(yaml.safe_dump({**SMALL, **NNS}))
    environment = {**os.environ, "HOME": str(folder)}
    arguments = [*PROGRAM, "sweep", "small.yaml", "--local"]
    subprocess.run(arguments, cwd=folder, env=environment, check=True, capture_output=True, timeout=200)
    return folder / "runs"


def decisions(output: Path) -> list[Any]:
    """Returns the rows of all decisions committed so far."""
    for path in output.glob("sweeps/*/groups/*/ledger.sqlite"):
        with closing(sqlite3.connect(path)) as db, suppress(sqlite3.OperationalError):
            return db.execute("SELECT payload FROM rows WHERE kind = 'decision' ORDER BY seq").fetchall()
    return []


@pytest.mark.parametrize(
    ("number", "whole_group"), [(signal.SIGTERM, False), pytest.param(signal.SIGINT, True, marks=pytest.mark.long)]
)
def test_an_interrupt_commits_the_round_and_a_resume_ends_with_the_same_bits(
    launch: Callable[..., Any],
    call: Call,
    sweep_file: Callable[..., Path],
    tmp_path: Path,
    wanted: Path,
    number: int,
    whole_group: bool,
) -> None:
    """Ctrl-C in a terminal sends SIGINT to every process. A scheduler sends SIGTERM only to the first process."""
    file = sweep_file(**NNS, commit_every=0.5)
    process = launch("sweep", file)
    wait_for(lambda: decisions(tmp_path / "runs"))
    (os.killpg if whole_group else os.kill)(process.pid, number)
    out, err = process.communicate(timeout=100)
    assert process.returncode == 130, err
    assert "the sweep stops when the current round is committed and" in err
    before = len(decisions(tmp_path / "runs"))
    assert 0 < before < 36
    command = out.strip().splitlines()[-1].partition("Go on with: supsup ")[2].split()
    assert command[0] == "resume"
    code, out, err = call("status", "--json")
    assert json.loads(out)[0]["state"] == "interrupted", err
    code, out, err = call(*command, "--local")
    assert code == 0, err
    assert "6/6 shards" in out
    assert len(decisions(tmp_path / "runs")) == 36
    assert nns_science(the_ledger(tmp_path / "runs")) == nns_science(the_ledger(wanted))


@pytest.mark.long
def test_a_run_resumes_from_its_moved_output_without_the_sweep_file(
    launch: Callable[..., Any], call: Call, sweep_file: Callable[..., Path], tmp_path: Path, wanted: Path
) -> None:
    """The output folder is moved, as to another machine, and the sweep file is deleted."""
    file = sweep_file(**NNS, commit_every=0.5)
    process = launch("sweep", file, "--local")
    wait_for(lambda: decisions(tmp_path / "runs"))
    process.kill()
    process.communicate()
    (tmp_path / "runs").rename(tmp_path / "elsewhere")
    file.unlink()
    code, _, err = call("resume", "output=elsewhere", "--local")
    assert code == 0, err
    assert nns_science(the_ledger(tmp_path / "elsewhere")) == nns_science(the_ledger(wanted))


@pytest.mark.long  # takes a minute; tests/nns has the same check with replies in another order
def test_four_streams_give_the_same_masks_with_one_worker_and_with_two(
    call: Call, sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    file = sweep_file(**{**NNS, "stream": {"segment_batches": 200, "num_streams": 4}})
    for workers in (1, 2):
        code, _, err = call("sweep", file, f"output=by{workers}", "--workers", workers)
        assert code == 0, err
    assert nns_science(the_ledger(tmp_path / "by1")) == nns_science(the_ledger(tmp_path / "by2"))
