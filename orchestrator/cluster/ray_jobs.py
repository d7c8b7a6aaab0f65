"""Sweeps as Ray jobs: submit one from a working tree to a cluster's head, follow its log, drain it, stop it."""

from __future__ import annotations

import asyncio
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.base.library_internals import ray_package_hash
from orchestrator.base.wording import first_line
from orchestrator.spec.experiment import DatasetError
from orchestrator.spec.sweep_config import read_sweep
from orchestrator.sweeps.sweep import Sweep, open_sweep
from supsup_core.errors import InputError, SupSupError

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

EXCLUDES = [".git", ".venv", "runs", "site", "**/__pycache__", "*.egg-info", ".*_cache", ".hypothesis"]
"""Parts of a working tree that are never sent to a cluster, as patterns of a .gitignore. Files that the tree's own
.gitignore names are not sent either."""

STOP_SECONDS = 90
"""How long a stopped job may take to finish its round and commit before Ray kills it."""

_EXIT_CODES = {"SUCCEEDED": 0, "FAILED": 1, "STOPPED": 130}
"""The exit codes of jobs that have ended, by their states."""


def submit(file: Path, overrides: Sequence[str], address: str, python: str, workers: int | None, detach: bool) -> int:
    """Submit a sweep file as a job, together with the working tree, and follow its log unless `detach`.

    address: the URL of the head's dashboard. python: the interpreter on the head. workers: as of `supsup sweep`.

    Returns an exit code. Submitting is idempotent: the job is named by the sweep and by the content of the tree, so the
    same sweep and tree are one job. A job that failed or was stopped is submitted again under the next number, and the
    sweep resumes. InputError when the file or its output would not be found on the head.
    """
    tree = Path.cwd()
    if not file.absolute().is_relative_to(tree):
        raise InputError(
            f"{file}: is not below {tree}, the folder that is sent to the cluster; run this in a folder above the file"
        )
    output = read_sweep(file, overrides).output
    if not output.startswith(("/", "~")):
        raise InputError(
            f"{file}: output: {output!r} would be a folder of the job's, and go with it; "
            "set output=/PATH to a folder that the cluster keeps and every node sees"
        )
    sweep = open_sweep(file, overrides)
    _check_plan(sweep)
    words = [python, "-m", "orchestrator.cli", "sweep", str(file.absolute().relative_to(tree)), *overrides]
    words += ["--address", "auto", *(["--workers", str(workers)] if workers is not None else [])]
    folder = sweep.output.path
    excludes = [*EXCLUDES, *([str(folder.relative_to(tree))] if folder.is_relative_to(tree) else [])]
    with _job_client(address) as client:
        name, state = _name_for(client, f"{sweep.sweep_id}-{ray_package_hash(tree, excludes)[:8]}")
        if state is not None:
            print(f"{name}: is there already ({state})")
        else:
            client.submit_job(
                entrypoint=shlex.join(words),
                submission_id=name,
                runtime_env={
                    "working_dir": str(tree), "excludes": excludes,
                    "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS), "PYTHONUNBUFFERED": "1"},
                },
                metadata={"sweep": sweep.sweep_id, "output": output},
            )  # fmt: skip
            print(f"{name}: submitted")
        if detach:
            print(f"follow it: supsup logs {name} --address {address}")
            print(f"stop it:   supsup stop {name} --address {address}")
            return 0
        return _follow(client, name, address)


def logs(job: str, address: str) -> int:
    """Print the log of a job until the job ends. Returns the exit code of the job's state.

    job: its name, or the beginning of it.
    """
    with _job_client(address) as client:
        return _follow(client, _find_job(client, job), address)


def stop(job: str, address: str) -> int:
    """Have a job commit and end, and wait until it has. Returns an exit code.

    SupSupError when the job has not ended after STOP_SECONDS and 30 seconds more.
    """
    with _job_client(address) as client:
        name = _find_job(client, job)
        client.stop_job(name)
        deadline = time.monotonic() + STOP_SECONDS + 30
        while (state := client.get_job_status(name).value) not in _EXIT_CODES:
            if time.monotonic() > deadline:
                raise SupSupError(f"{name}: has not ended within {STOP_SECONDS + 30} s; it is {state}")
            time.sleep(0.5)
    print(f"{name}: {state}; the same `supsup submit` continues it")
    return 0


def drain(job: str, address: str) -> int:
    """Have a job finish the shards under way, start no more, and end. Returns an exit code.

    A second job on the head runs `supsup drain` there; this follows the log of that job.
    """
    with _job_client(address) as client:
        name = _find_job(client, job)
        info = client.get_job_info(name)
        if str(info.status.value) in _EXIT_CODES:
            raise InputError(f"{name}: has ended ({info.status.value})")
        if not info.metadata or "sweep" not in info.metadata:
            raise InputError(f"{name}: was not submitted by supsup; stop it with `ray job stop {name}`")
        python = shlex.split(info.entrypoint)[0]
        words = [python, "-m", "orchestrator.cli", "drain", info.metadata["sweep"], f"output={info.metadata['output']}"]
        drain_job = client.submit_job(entrypoint=shlex.join(words), metadata={"asks": name})
        return _follow(client, drain_job, address)


def _check_plan(sweep: Sweep) -> None:
    """InputError when a sweep cannot be planned. Datasets may be on the cluster only: what needs them is not checked,
    and a line on standard error says so."""
    try:
        sweep.plan()
    except InputError as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, DatasetError):
            cause = cause.__cause__
        if cause is None:
            raise
        print(f"not checked as a whole, because that needs the data: {error}", file=sys.stderr)


def _name_for(client: JobSubmissionClient, name: str) -> tuple[str, str | None]:
    """The name of a job to submit, and None; or the name and the state of the job that runs or has succeeded."""
    states = _job_states(client)
    tried, number = name, 1
    while states.get(tried) in ("FAILED", "STOPPED"):
        number += 1
        tried = f"{name}-{number}"
    return tried, states.get(tried)


def _find_job(client: JobSubmissionClient, job: str) -> str:
    """The name of a job: `job` itself, or the newest that begins with it. InputError when there is none."""
    names = list(_job_states(client))
    fitting = [name for name in names if name == job] or [name for name in names if name.startswith(job)]
    if not fitting:
        raise InputError(f"{job}: no such job on the cluster; there are: {', '.join(names) or 'none'}")
    return fitting[-1]


def _job_states(client: JobSubmissionClient) -> dict[str, str]:
    """The states of all submitted jobs by their names, oldest first."""
    found = [details for details in client.list_jobs() if details.submission_id]
    found.sort(key=lambda details: details.start_time or 0)
    return {str(details.submission_id): str(details.status.value) for details in found}


def _follow(client: JobSubmissionClient, name: str, address: str) -> int:
    """Print the log of a job until the job ends. Returns the exit code of its state; 130 after Ctrl-C, which does not
    stop the job."""

    async def print_log() -> None:
        async for text in client.tail_job_logs(name):
            print(text, end="", flush=True)

    try:
        asyncio.run(print_log())
        while (state := client.get_job_status(name).value) not in _EXIT_CODES:
            time.sleep(0.5)
    except KeyboardInterrupt:
        print(f"\nthe job continues; follow it again with: supsup logs {name} --address {address}", file=sys.stderr)
        return 130
    if state != "SUCCEEDED":
        message = (client.get_job_info(name).message or "").splitlines()
        print(f"{name}: {state}{f': {message[0]}' if message else ''}", file=sys.stderr)
    return _EXIT_CODES[state]


@contextmanager
def _job_client(address: str) -> Iterator[JobSubmissionClient]:
    """A client of the head's job server. InputError when there is no such server, or when it refuses the token."""
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    try:
        yield JobSubmissionClient(address)
    except (AuthenticationError, ConnectionError, RuntimeError, ValueError) as error:
        raise InputError(
            f"--address: no access to the jobs of {address} ({first_line(error)}); give the URL of the head's "
            "dashboard, such as http://127.0.0.1:8265, install ray[default] here and there, and keep the cluster's "
            "token here"
        ) from error
