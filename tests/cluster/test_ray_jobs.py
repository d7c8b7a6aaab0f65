"""Sweeps submitted as Ray jobs, with a fake job server in this process."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
import ray

from orchestrator.base.plain_values import Node
from orchestrator.cluster import ray_jobs, upload
from supsup_core.errors import InputError, SupSupError

ADDRESS = "http://127.0.0.1:8265"


class Status(Enum):
    """Ray's names of the states of a job."""

    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    STOPPED = "STOPPED"


@dataclass
class Job:
    """A job on the fake server."""

    submission_id: str
    entrypoint: str
    start_time: int
    runtime_env: Node = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    status: Status = Status.RUNNING
    message: str = ""


class Server:
    """A fake of Ray's JobSubmissionClient and its server, with the methods that ray_jobs calls."""

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self._server_ray_version = ray.__version__

    def submit_job(
        self, *, entrypoint: str, submission_id: str = "", runtime_env: Node | None = None, metadata: dict[str, str]
    ) -> str:
        name = submission_id or f"raysubmit_{len(self.jobs)}"
        assert name not in self.jobs
        self.jobs[name] = Job(name, entrypoint, len(self.jobs), runtime_env or {}, metadata)
        return name

    def list_jobs(self) -> list[Job]:
        return sorted(self.jobs.values(), key=lambda job: -job.start_time)

    def get_job_info(self, name: str) -> Job:
        return self.jobs[name]

    def get_job_status(self, name: str) -> Status:
        return self.jobs[name].status

    def stop_job(self, name: str) -> None:
        self.jobs[name].status = Status.STOPPED

    async def tail_job_logs(self, name: str) -> AsyncIterator[str]:
        yield f"the log of {name}\n"
        if self.jobs[name].status is Status.RUNNING:
            self.jobs[name].status = Status.SUCCEEDED


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Server:
    """An empty fake job server. The working tree is tmp_path."""
    made = Server()
    monkeypatch.setattr("ray.job_submission.JobSubmissionClient", lambda address: made)
    monkeypatch.chdir(tmp_path)
    return made


def submit(file: Path, *overrides: str) -> None:
    words = [f"output={file.parent / 'kept'}", *overrides]
    assert ray_jobs.submit(file, words, ADDRESS, "/opt/python", None, detach=True) == 0


def test_a_job_runs_the_sweep_on_the_head_with_the_working_tree(
    server: Server, sweep_file: Callable[..., Path]
) -> None:
    file = sweep_file()
    assert ray_jobs.submit(file, [f"output={file.parent / 'kept'}"], ADDRESS, "/opt/python", 3, detach=True) == 0
    (job,) = server.jobs.values()
    assert job.submission_id.startswith("small-")
    assert shlex.split(job.entrypoint) == [
        "/opt/python", "-m", "orchestrator.cli", "sweep", "small.yaml", f"output={file.parent / 'kept'}",
        "--address", "auto", "--workers", "3",
    ]  # fmt: skip
    assert job.runtime_env["working_dir"] == str(file.parent)
    assert {"kept", ".git"} <= set(job.runtime_env["excludes"])
    assert job.metadata["output"] == str(file.parent / "kept")


def test_submitting_the_same_sweep_and_working_tree_again_makes_no_second_job(
    server: Server, sweep_file: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    file = sweep_file()
    (file.parent / ".gitignore").write_text("*.log\n")
    submit(file)
    (file.parent / "ignored.log").write_text("not sent")
    (file.parent / "kept").mkdir()
    (file.parent / "kept" / "ledger").write_text("not sent either")
    submit(file)
    assert len(server.jobs) == 1
    assert "was submitted before (RUNNING)" in capsys.readouterr().out
    submit(file, "training.num_batches=31")
    assert len(server.jobs) == 2
    (file.parent / "my_net.py").write_text("another tree")
    submit(file)
    assert len(server.jobs) == 3


def test_a_job_that_failed_or_was_stopped_is_submitted_again(
    server: Server, sweep_file: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    file = sweep_file()
    submit(file)
    (first,) = server.jobs
    for number, status in ((2, Status.FAILED), (3, Status.STOPPED)):
        list(server.jobs.values())[-1].status = status
        submit(file)
        assert list(server.jobs)[-1] == f"{first}-{number}"
    list(server.jobs.values())[-1].status = Status.SUCCEEDED
    submit(file)
    assert len(server.jobs) == 3
    assert f"{first}-3: was submitted before (SUCCEEDED)" in capsys.readouterr().out


def test_a_file_outside_the_tree_is_refused(
    server: Server, sweep_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "tree").mkdir()
    monkeypatch.chdir(tmp_path / "tree")
    with pytest.raises(InputError, match=r"small\.yaml: is outside the current folder .*tree, which is sent"):
        submit(sweep_file())


def test_an_output_in_the_folder_of_the_job_is_refused(server: Server, sweep_file: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match=r"output: 'runs' would be inside the job's folder.*set output=/PATH"):
        ray_jobs.submit(sweep_file(), [], ADDRESS, "python", None, detach=True)


def test_a_dataset_may_exist_only_on_the_cluster(
    server: Server, sweep_file: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    base = {"name": "image_folder", "folder": "beasts", "num_classes": 2, "side": 8}
    submit(sweep_file(scenario="GG", benchmark={"name": "split", "base": base, "num_tasks": 1}))
    assert "the sweep was checked only in part, because its dataset" in capsys.readouterr().err
    assert len(server.jobs) == 1


def test_a_sweep_that_cannot_be_planned_is_not_submitted(server: Server, sweep_file: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match="did you mean 'supsup'"):
        submit(sweep_file(method={"name": "supsub"}))
    with pytest.raises(InputError, match="did you mean 'mnist'"):
        submit(sweep_file(benchmark={"name": "permuted", "base": "mnst"}))
    assert not server.jobs


@pytest.mark.parametrize(
    ("status", "code"), [(Status.SUCCEEDED, 0), (Status.FAILED, 1), (Status.STOPPED, 130), (Status.RUNNING, 0)]
)
def test_a_log_is_followed_to_the_end_of_the_job(
    server: Server, capsys: pytest.CaptureFixture[str], status: Status, code: int
) -> None:
    server.jobs["small-1"] = Job("small-1", "python", 0, status=status, message="why it ended\nand more")
    assert ray_jobs.logs("small", ADDRESS) == code
    found = capsys.readouterr()
    assert "the log of small-1" in found.out
    assert found.err == (f"small-1: {status.value}: why it ended\n" if code else "")


def test_a_name_means_its_newest_job(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    for number, name in enumerate(("small-b", "small-a", "other")):
        server.jobs[name] = Job(name, "python", number)
    assert ray_jobs.logs("small", ADDRESS) == 0
    assert "small-a" in capsys.readouterr().out
    with pytest.raises(InputError, match="large: the cluster has no such job; its jobs are: small-b, small-a, other"):
        ray_jobs.logs("large", ADDRESS)


def test_a_prefix_never_means_the_job_of_a_sweep_with_another_name(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    sweeps = {"small-a": "small-a", "small-a-2": "small-a", "small_too-b": "small_too-b"}
    for number, (name, sweep) in enumerate(sweeps.items()):
        server.jobs[name] = Job(name, "python", number, metadata={"sweep": sweep})
    assert ray_jobs.logs("small", ADDRESS) == 0
    assert "the log of small-a-2" in capsys.readouterr().out
    with pytest.raises(InputError, match="sma: several sweeps match: small-a, small_too-b; type more of the name"):
        ray_jobs.stop("sma", ADDRESS)


def test_stop_waits_for_the_end_of_the_job(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.jobs["small-1"] = Job("small-1", "python", 0)
    assert ray_jobs.stop("small-1", ADDRESS) == 0
    assert capsys.readouterr().out == "small-1: STOPPED; to continue the sweep, run the same `supsup submit` again\n"


def test_a_status_is_read_by_a_job_beside_the_sweep(
    server: Server, sweep_file: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    submit(sweep_file())
    (name,) = server.jobs
    assert ray_jobs.status(name, ADDRESS, as_json=False) == 0
    assert f"{name}: RUNNING\n" in capsys.readouterr().out
    server.jobs[name].status = Status.SUCCEEDED
    assert ray_jobs.status(name, ADDRESS, as_json=True) == 0
    assert name not in capsys.readouterr().out.splitlines()[0]
    job = list(server.jobs.values())[-1]
    words = shlex.split(job.entrypoint)
    assert words[:5] == ["/opt/python", "-m", "orchestrator.cli", "status", name.rpartition("-")[0]]
    assert words[6:] == ["--json"]


def test_a_cluster_of_another_version_gets_no_job(server: Server, sweep_file: Callable[..., Path]) -> None:
    server._server_ray_version = "2.1.0"
    with pytest.raises(InputError, match=rf"runs Ray 2\.1\.0, but this machine has Ray {re.escape(ray.__version__)}; "):
        submit(sweep_file())
    assert not server.jobs


def test_what_ray_cannot_upload_is_refused_or_left_out_before_anything_is_sent(
    server: Server, sweep_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = sweep_file()
    os.mkfifo(file.parent / "pipe")  # Ray would wait for ever for the other end of the pipe
    (file.parent / "data.bin").write_bytes(bytes(600_000))
    monkeypatch.setattr(upload, "ray_upload_limit", lambda: 500_000)
    with pytest.raises(InputError, match=r"accepts less than 0\.5 MB; its largest parts are data\.bin"):
        submit(file)
    assert not server.jobs
    monkeypatch.setattr(upload, "ray_upload_limit", lambda: 1_000_000)
    (file.parent / "data.bin").write_bytes(bytes(1_000))
    (file.parent / "more.bin").write_bytes(bytes(990_000 - 20_000))
    submit(file)
    assert "/pipe" in next(iter(server.jobs.values())).runtime_env["excludes"]
    assert "the job uploads 1.0 MB, mostly " in capsys.readouterr().err


def test_a_job_that_the_cluster_refuses_is_reported_in_one_line(
    server: Server, sweep_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**job: object) -> str:
        raise RuntimeError("Request failed with status code 500: Traceback\n  File x\nRequest Entity Too Large.\n")

    monkeypatch.setattr(server, "submit_job", refuse)
    with pytest.raises(SupSupError, match=r"did not accept the job \(Request Entity Too Large\.\)"):
        submit(sweep_file())


def test_a_cluster_that_has_just_been_started_is_waited_for(
    server: Server, sweep_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.cluster.ray_jobs.time.sleep", lambda seconds: None)
    accept, tries = server.submit_job, iter([1, 2])

    def late(**job: Any) -> str:
        if next(tries, None) is not None:
            raise RuntimeError("status code 500: No available agent to submit job, please try again later.")
        return accept(**job)

    monkeypatch.setattr(server, "submit_job", late)
    submit(sweep_file())
    assert len(server.jobs) == 1
    monkeypatch.setattr(ray_jobs, "START_SECONDS", -1.0)
    tries = iter([1, 2])
    with pytest.raises(SupSupError, match="No available agent"):
        submit(sweep_file(seeds=[7]))


def test_drain_runs_as_a_job_beside_the_sweep(server: Server, sweep_file: Callable[..., Path]) -> None:
    submit(sweep_file())
    (name,) = server.jobs
    assert ray_jobs.drain(name, ADDRESS) == 0
    job = list(server.jobs.values())[-1]
    output = server.jobs[name].metadata["output"]
    sweep_id = name.rpartition("-")[0]
    assert shlex.split(job.entrypoint) == [
        "/opt/python", "-m", "orchestrator.cli", "drain", sweep_id, f"output={output}"
    ]  # fmt: skip
    server.jobs[name].status = Status.SUCCEEDED
    with pytest.raises(InputError, match=r"has ended already \(SUCCEEDED\)"):
        ray_jobs.drain(name, ADDRESS)
    server.jobs["mine"] = Job("mine", "python", 9)
    with pytest.raises(InputError, match="was not submitted by supsup; control it with `ray job`"):
        ray_jobs.drain("mine", ADDRESS)


def test_a_head_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(address: str) -> Server:
        raise ConnectionError(f"cannot reach {address}\nat all")

    monkeypatch.setattr("ray.job_submission.JobSubmissionClient", refuse)
    with pytest.raises(
        InputError, match=r"the cluster at http://127\.0\.0\.1:8265 cannot be reached \(cannot reach \S+\); check"
    ):
        ray_jobs.logs("small", ADDRESS)
