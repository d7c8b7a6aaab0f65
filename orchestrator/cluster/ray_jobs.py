"""Runs sweeps as Ray jobs: submits a sweep and its working tree to a cluster, prints its log, drains or stops it."""

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
from orchestrator.base.name_lookup import matching_names
from orchestrator.base.wording import first_line
from orchestrator.spec.experiment import DatasetError
from orchestrator.spec.sweep_config import read_sweep
from orchestrator.sweeps.sweep import Sweep, open_sweep
from supsup_core.errors import InputError, SupSupError

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

EXCLUDES = [".git", ".venv", "runs", "site", "**/__pycache__", "*.egg-info", ".*_cache", ".hypothesis"]
"""Patterns, in .gitignore syntax, of files in a working tree that are never sent to a cluster. Files that the tree's
own .gitignore excludes are not sent either."""

STOP_SECONDS = 90
"""How many seconds a stopped job may take to commit and end before Ray kills it."""

_EXIT_CODES = {"SUCCEEDED": 0, "FAILED": 1, "STOPPED": 130}
"""The exit code for each final state of a Ray job."""


def submit(file: Path, overrides: Sequence[str], address: str, python: str, workers: int | None, detach: bool) -> int:
    """Submit a sweep file as a job, together with the working tree, and follow its log unless `detach`.

    address: the URL of the head's dashboard. python: the Python interpreter on the head. workers: the number of
    workers, as for `supsup sweep`.

    Returns an exit code. Submitting is idempotent: the job's name is derived from the sweep and the content of the
    tree, so the same sweep and tree give the same job. If that job failed or was stopped, it is submitted again under
    the next number, and the sweep resumes. Raises InputError if the head could not find the file or its output.
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
    """Print the log of a job until the job ends. Returns the exit code for the job's final state.

    job: the job's name, or the beginning of the name. Raises InputError if there is no such job.
    """
    with _job_client(address) as client:
        return _follow(client, _find_job(client, job), address)


def stop(job: str, address: str) -> int:
    """Stop a job, which commits and then ends, and wait for its end. Returns an exit code.

    Raises SupSupError if the job has not ended after STOP_SECONDS + 30 seconds.
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
    """Request that a job finishes the shards in training, starts no others, and ends. Returns an exit code.

    Submits a second job that runs `supsup drain` on the head, and prints the log of this second job. Raises InputError
    if the job has ended or was not submitted by supsup.
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
    """Raise InputError if a sweep cannot be planned.

    If planning needs a dataset that is not on this machine, prints a message to standard error and does not raise: the
    dataset may be on the cluster.
    """
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
    """Returns the first of NAME, NAME-2, NAME-3, … that no failed or stopped job has, and the state of its job.

    The state is None if there is no job of that name, so that the job can be submitted.
    """
    states = _job_states(client)
    tried, number = name, 1
    while states.get(tried) in ("FAILED", "STOPPED"):
        number += 1
        tried = f"{name}-{number}"
    return tried, states.get(tried)


def _find_job(client: JobSubmissionClient, job: str) -> str:
    """Returns the name of a job: `job` itself, or the newest job of the sweep that `job` names in full or in part.

    Raises InputError if no job fits, or jobs of sweeps with different names.
    """
    jobs = {str(one.submission_id): one.metadata or {} for one in _jobs(client)}
    sweeps = {name: metadata.get("sweep", name) for name, metadata in jobs.items()}
    if job in sweeps:
        return job
    fitting = matching_names(job, list(dict.fromkeys(sweeps.values()))) or matching_names(job, list(sweeps))
    if not fitting:
        raise InputError(f"{job}: no such job on the cluster; there are: {', '.join(sweeps) or 'none'}")
    if len({name.rpartition("-")[0] for name in fitting}) > 1:
        raise InputError(f"{job}: several sweeps fit: {', '.join(fitting)}; give more of the name")
    return [name for name, sweep in sweeps.items() if sweep in fitting or name in fitting][-1]


def _jobs(client: JobSubmissionClient) -> list[JobDetails]:
    """Returns all submitted jobs, the oldest first."""
    found = [details for details in client.list_jobs() if details.submission_id]
    return sorted(found, key=lambda details: details.start_time or 0)


def _job_states(client: JobSubmissionClient) -> dict[str, str]:
    """Returns the state of every submitted job by name, oldest job first."""
    return {str(details.submission_id): str(details.status.value) for details in _jobs(client)}


def _follow(client: JobSubmissionClient, name: str, address: str) -> int:
    """Print the log of a job until the job ends. Returns the exit code for the job's final state.

    Ctrl-C stops only the printing, not the job; the exit code is then 130.
    """

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
    """Yields a client of the head's job server. Raises InputError if there is no server or if it refuses the token."""
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
