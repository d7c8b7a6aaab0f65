"""Sweeps as Ray jobs: submitted from a working tree to a cluster's head, followed and stopped from here."""

from __future__ import annotations

import asyncio
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.spec.sweep_config import read_sweep
from orchestrator.sweeps.lookup import open_sweep
from supsup_core.errors import InputError, SupSupError

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

EXCLUDES = [".git", ".venv", "runs", "site", "**/__pycache__", "*.egg-info", ".*_cache", ".hypothesis"]
"""What of a working tree never goes along; neither does what its .gitignore names."""

STOP_SECONDS = 90
"""How long a job that is stopped may take to end its round and commit, before Ray kills it."""

_OVER = ("SUCCEEDED", "FAILED", "STOPPED")
_EXIT = {"SUCCEEDED": 0, "FAILED": 1, "STOPPED": 130}


def submit(file: Path, overrides: Sequence[str], address: str, python: str, workers: int | None, detach: bool) -> int:
    """Have a sweep run as a job from this working tree, and follow its log unless `detach`.

    The job is named by what the sweep computes and by the content of the tree, so that the same asked twice is one job.
    One that has failed or was stopped is submitted again, and goes on where it was.
    """
    tree = Path.cwd()
    if not file.absolute().is_relative_to(tree):
        raise InputError(f"{file}: is not below {tree}, the working tree that goes to the cluster; run this above it")
    output = read_sweep(file, overrides).output
    if not output.startswith(("/", "~")):
        raise InputError(
            f"{file}: output: {output!r} would be a folder of the job's, and go with it; "
            "set output=/PATH to a folder that the cluster keeps and every node sees"
        )
    sweep = open_sweep(file, overrides)
    try:
        sweep.plan()
    except InputError as error:
        if "benchmark.base" not in str(error):
            raise
        print(f"not checked as a whole, which takes the data: {error}", file=sys.stderr)
    words = [python, "-m", "orchestrator.cli", "sweep", str(file.absolute().relative_to(tree)), *overrides]
    words += ["--address", "auto", *(["--workers", str(workers)] if workers is not None else [])]
    excludes = [*EXCLUDES, *([str(sweep.output.relative_to(tree))] if sweep.output.is_relative_to(tree) else [])]
    with _client(address) as client:
        name, found = _named(client, f"{sweep.sweep_id}-{_content_of(tree, excludes)}")
        if found is not None:
            print(f"{name}: is there already ({found})")
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
            print(
                f"follow it: supsup logs {name} --address {address}\nstop it:   supsup stop {name} --address {address}"
            )
            return 0
        return _follow(client, name, address)


def logs(job: str, address: str) -> int:
    """Print a job's log as it grows, to its end; returns the exit code that the job stands for."""
    with _client(address) as client:
        return _follow(client, _known(client, job), address)


def stop(job: str, address: str) -> int:
    """Have a job commit and end; returns once it has."""
    with _client(address) as client:
        name = _known(client, job)
        client.stop_job(name)
        deadline = time.monotonic() + STOP_SECONDS + 30
        while (state := client.get_job_status(name).value) not in _OVER:
            if time.monotonic() > deadline:
                raise SupSupError(f"{name}: has not ended within {STOP_SECONDS + 30} s; it is {state}")
            time.sleep(0.5)
    print(f"{name}: {state}; the same `supsup submit` goes on with it")
    return 0


def drain(job: str, address: str) -> int:
    """Have a job end what is under way, hand out no more, and end: a job of its own on the head asks for it."""
    with _client(address) as client:
        name = _known(client, job)
        info = client.get_job_info(name)
        if str(info.status.value) in _OVER:
            raise InputError(f"{name}: has ended ({info.status.value})")
        if not info.metadata or "sweep" not in info.metadata:
            raise InputError(f"{name}: was not submitted by supsup; stop it with `ray job stop`")
        python = shlex.split(info.entrypoint)[0]
        words = [python, "-m", "orchestrator.cli", "drain", info.metadata["sweep"], f"output={info.metadata['output']}"]
        asking = client.submit_job(entrypoint=shlex.join(words), metadata={"asks": name})
        return _follow(client, asking, address)


def _content_of(tree: Path, excludes: list[str]) -> str:
    """A hash of the files that Ray would take along."""
    from ray._private.runtime_env.packaging import get_uri_for_directory

    uri: str = get_uri_for_directory(str(tree), include_gitignore=True, excludes=excludes)
    return uri.rpartition("_")[2].partition(".")[0][:8]


def _named(client: JobSubmissionClient, name: str) -> tuple[str, str | None]:
    """The name to submit under, or that of the job that is at it or has done it, with its state."""
    known = _jobs(client)
    number = 1
    while True:
        tried = name if number == 1 else f"{name}-{number}"
        if tried not in known:
            return tried, None
        if known[tried] not in ("FAILED", "STOPPED"):
            return tried, known[tried]
        number += 1


def _known(client: JobSubmissionClient, job: str) -> str:
    """The job of this name, or the newest of those whose names begin with it."""
    names = list(_jobs(client))
    fitting = [name for name in names if name == job] or [name for name in names if name.startswith(job)]
    if not fitting:
        raise InputError(f"{job}: no such job on the cluster; there are: {', '.join(names) or 'none'}")
    return fitting[-1]


def _jobs(client: JobSubmissionClient) -> dict[str, str]:
    """The states of all submitted jobs, in the order they came."""
    found = [details for details in client.list_jobs() if details.submission_id]
    found.sort(key=lambda details: details.start_time or 0)
    return {str(details.submission_id): str(details.status.value) for details in found}


def _follow(client: JobSubmissionClient, name: str, address: str) -> int:
    async def tail() -> None:
        async for text in client.tail_job_logs(name):
            print(text, end="", flush=True)

    try:
        asyncio.run(tail())
        while (state := client.get_job_status(name).value) not in _OVER:
            time.sleep(0.5)
    except KeyboardInterrupt:
        print(f"\nthe job goes on; follow it again with: supsup logs {name} --address {address}", file=sys.stderr)
        return 130
    if state != "SUCCEEDED":
        message = (client.get_job_info(name).message or "").splitlines()
        print(f"{name}: {state}{f': {message[0]}' if message else ''}", file=sys.stderr)
    return _EXIT[state]


@contextmanager
def _client(address: str) -> Iterator[Any]:
    """A client of a head's job server; InputError where there is none, or it lets nobody in."""
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    try:
        yield JobSubmissionClient(address)
    except (AuthenticationError, ConnectionError, RuntimeError, ValueError) as error:
        raise InputError(
            f"--address: the jobs of {address} cannot be had ({(str(error) or '?').splitlines()[0]}); name the head's "
            "dashboard, such as http://127.0.0.1:8265, have ray[default] on both sides, and the cluster's token here"
        ) from error
