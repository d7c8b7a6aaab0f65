"""`supsup sweep`: what it refuses before training starts, and the state after an interrupt."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from orchestrator.base.folder_lock import owned
from orchestrator.cli import run_sweep
from orchestrator.cli.run_sweep import refuse_impossible, with_workers
from orchestrator.coordination.messages import Job, Reply
from orchestrator.execution.worker import Worker, failed_reply
from orchestrator.sweeps.sweep import open_sweep
from supsup_core.errors import InputError

Command = Callable[..., Any]


def test_cuda_devices_are_counted_on_this_machine_but_not_on_a_cluster(
    sweep_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    sweep = open_sweep(sweep_file(), ["resources.device=cuda"])
    for here in (None, "local"):
        with pytest.raises(InputError, match="CUDA devices, but this machine has 0"):
            refuse_impossible(sweep, here)
    refuse_impossible(sweep, "10.0.0.5:6379")  # a head without a GPU


def test_workers_on_the_command_line_replace_those_of_the_sweep(sweep_file: Callable[..., Path]) -> None:
    sweep = open_sweep(sweep_file(), [])
    assert with_workers(sweep, 7).config.resources.num_workers == 7
    assert with_workers(sweep, None) == sweep


def test_requests_made_after_the_end_do_not_stop_the_next_launch_and_far_too_many_threads_are_mentioned(
    supsup: Command, sweep_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_sweep, "usable_cpus", lambda: 2)
    first = supsup("sweep", sweep_file(resources={"threads": 5}), "--local")
    assert first.code == 0
    assert "this machine has 2 CPUs for 1 worker with 5 threads per worker, so the threads slow" in first.err
    assert "set resources.threads=2 to use all CPUs" in first.err
    (group,) = open_sweep(sweep_file(), []).folder.groups()
    group.stop_file.touch()
    group.sweep.pause_file.touch()
    group.waiting_file.touch()
    monkeypatch.setattr(run_sweep, "usable_cpus", lambda: 3)
    again = supsup("resume", "--local")
    assert again.code == 0, again.err
    assert "share" not in again.err
    assert not group.stop_file.exists()
    assert not group.sweep.pause_file.exists()
    assert not group.waiting_file.exists()


def test_second_process_on_a_sweep_is_refused_with_the_first_ones_id(
    supsup: Command, sweep_file: Callable[..., Path]
) -> None:
    with owned(open_sweep(sweep_file(), []).folder.path):
        found = supsup("sweep", sweep_file(), "--local")
        other = supsup("sweep", sweep_file(), "benchmark.num_tasks=1", "--local")
    assert found.code == 2
    assert f"process {os.getpid()} is running this sweep" in found.err
    assert other.code == 0, other.err


def test_interrupt_that_a_library_catches_does_not_fail_the_task(
    supsup: Command, sweep_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Worker.run

    def caught(worker: Worker, job: Job) -> Reply:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt as error:
            return failed_reply(job, RuntimeError(f"odd: {error}"))
        return run(worker, job)

    with monkeypatch.context() as patched:
        patched.setattr(Worker, "run", caught)
        found = supsup("sweep", sweep_file(), "--local")
    assert found.code == 130
    assert "FAILED" not in found.out
    assert "Go on with: supsup resume small-" in found.out
    assert supsup("resume", "--local").code == 0
