"""Forks that are interrupted, written by two processes at once, or have lost the state from which they started."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.base.folder_lock import owned
from orchestrator.base.output_folder import OutputFolder, SweepFolder
from orchestrator.nns.fork import _publish as publish
from tests.nns.test_fork import NNS, forked, results, states, the_fork

Command = Callable[..., Any]


@pytest.fixture
def origin(supsup: Command, sweep_file: Callable[..., Path], tmp_path: Path) -> str:
    """The id of a finished NNs sweep."""
    assert supsup("sweep", sweep_file(**NNS), "--local").code == 0
    (made,) = os.listdir(tmp_path / "runs" / "sweeps")
    return made


@pytest.fixture
def words(origin: str) -> tuple[str, ...]:
    """The command that forks the sweep."""
    return ("fork", origin, "--at-task", "2", "budget.num_masks=9", "--local")


def test_an_interrupted_fork_is_no_damaged_sweep_and_can_be_repeated(
    supsup: Command, origin: str, words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*folders: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("orchestrator.nns.fork._publish", interrupt)
        assert supsup(*words).code == 130
    assert supsup("fsck").code == 0
    assert "\ntemporary file of an interrupted write: " in supsup("gc").out
    assert supsup(*words).code == 0
    assert "nothing to delete" in supsup("gc").out
    fork = the_fork(tmp_path / "runs", {origin})
    (tmp_path / "runs" / "sweeps" / fork / "sweep.json").unlink()
    refused = supsup(*words)
    assert refused.code == 2
    assert refused.err.count("\n") == 1
    assert "move it to another place" in refused.err


def test_two_processes_never_write_the_same_fork_at_once(
    supsup: Command, origin: str, words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = []

    def publish_late(draft: SweepFolder, final: SweepFolder) -> None:
        refused.extend([supsup(*words), supsup("gc", "--delete")])
        publish(draft, final)

    with monkeypatch.context() as patched:
        patched.setattr("orchestrator.nns.fork._publish", publish_late)
        assert supsup(*words).code == 0
    assert [found.code for found in refused] == [2, 2]
    assert f"process {os.getpid()} is writing this fork; that process also trains" in refused[0].err
    assert f"process {os.getpid()} is writing a fork to this output; wait until" in refused[1].err
    assert forked(tmp_path / "runs", the_fork(tmp_path / "runs", {origin})).at_task == 2
    assert "this fork exists already" in supsup(*words).err
    assert not list(OutputFolder(tmp_path / "runs").hidden_files())


def test_a_fork_that_has_lost_its_start_does_not_start_from_scratch(
    supsup: Command, sweep_file: Callable[..., Path], origin: str, words: tuple[str, ...], tmp_path: Path
) -> None:
    assert supsup(*words).code == 0
    fork = the_fork(tmp_path / "runs", {origin})
    before = states(tmp_path / "runs")[fork]
    for file in tmp_path.glob(f"runs/sweeps/{fork}/groups/*/ledger*"):
        file.unlink()
    for _ in range(2):
        found = supsup("resume", fork, "--local")
        assert found.code != 0
        assert f"lacks the state of {origin} from which the fork starts, and there is no intact snapshot" in found.err
        assert not list(tmp_path.glob(f"runs/sweeps/{fork}/groups/*/ledger.sqlite"))
    assert supsup("sweep", sweep_file(name="tasks"), "--local").code == 0
    trained = next(tmp_path.glob("runs/store/??/*.safetensors"))
    trained.write_bytes(trained.read_bytes()[:-1])
    repaired = supsup("fsck", "--repair", "--local")
    assert repaired.code == 1
    assert f"{fork}: cannot be repaired: " in repaired.out
    assert "found 1 fault" in repaired.out  # the other sweep is repaired
    assert "supsup: not every fault was repaired; " in repaired.err
    (tmp_path / "runs" / "sweeps" / fork).rename(tmp_path / "moved")
    assert supsup(*words).code == 0
    assert results(states(tmp_path / "runs")[fork]) == results(before)


def test_a_fork_that_another_process_has_just_written_is_not_written_again(
    supsup: Command, origin: str, words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second process waits for the lock while the first process writes the fork and trains it."""

    @contextlib.contextmanager
    def owned_late(*arguments: Any) -> Iterator[None]:
        with monkeypatch.context() as patched:
            patched.setattr("orchestrator.nns.fork.owned", owned)
            assert supsup(*words).code == 0
        with owned(*arguments):
            yield

    monkeypatch.setattr("orchestrator.nns.fork.owned", owned_late)
    refused = supsup(*words)
    assert refused.code == 2
    assert "this fork exists already; continue it with" in refused.err
    fork = the_fork(tmp_path / "runs", {origin})
    assert states(tmp_path / "runs")[fork].status == "done"
    assert not list(OutputFolder(tmp_path / "runs").hidden_files())
