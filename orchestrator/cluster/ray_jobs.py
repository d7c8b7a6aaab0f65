"""Runs sweeps as Ray jobs: submits a sweep with the current folder, prints a job's log, and drains or stops a job."""

from __future__ import annotations

import asyncio
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.base.library_internals import RAY_HAS_NO_AGENT, ray_package_hash, ray_version_of
from orchestrator.base.wording import first_line, matching_names, say
from orchestrator.cluster.upload import large_parts, measure
from orchestrator.spec.experiment import DatasetError
from orchestrator.spec.sweep_config import read_sweep
from orchestrator.sweeps.sweep import Sweep, open_sweep
from supsup_core.errors import InputError, SupSupError

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

EXCLUDES = [".git", ".venv", "runs", "site", "**/__pycache__", "*.egg-info", ".*_cache", ".hypothesis"]
"""Patterns, in .gitignore syntax, of files in the current folder that are never sent to a cluster. Files that the
folder's own .gitignore excludes are not sent either."""

STOP_SECONDS = 90
"""The number of seconds that a stopped job may take to commit its work and end, before Ray kills it."""

START_SECONDS = 60.0
"""If the cluster cannot run jobs yet, the submission of a job is repeated for this many seconds."""

_EXIT_CODES = {"SUCCEEDED": 0, "FAILED": 1, "STOPPED": 130}
"""The exit code for each final state of a Ray job."""


def submit(file: Path, overrides: Sequence[str], address: str, python: str, workers: int | None, detach: bool) -> int:
    """Submits a sweep file as a job, together with the current folder, and prints the job's log unless `detach`.

    address: the URL of the dashboard on the cluster's head node. python: the path of the Python interpreter on the head
    node. workers: the largest number of workers of a training group; None means resources.num_workers of the sweep.

    Returns an exit code. Submitting is idempotent: the same sweep and files give the same job. The job's name is
    derived from the sweep and from a hash of the folder. If that job failed or was stopped, this function submits a new
    job, which resumes the sweep (see `_name_for`). Raises InputError if the file is outside the current folder, if the
    output is a relative path, or if the sweep cannot be planned. Raises InputError also if the folder cannot be
    uploaded, or if the cluster runs another version of Ray.
    """
    tree = Path.cwd()
    if not file.absolute().is_relative_to(tree):
        raise InputError(
            f"{file}: is outside the current folder {tree}, which is sent to the cluster; run this command in a folder "
            "that contains the file"
        )
    output = read_sweep(file, overrides).output
    if not output.startswith(("/", "~")):
        raise InputError(
            f"{file}: output: {output!r} would be inside the job's folder, which Ray deletes; "
            "set output=/PATH to a persistent folder that all nodes share"
        )
    sweep = open_sweep(file, overrides)
    _check_plan(sweep)
    words = [python, "-m", "orchestrator.cli", "sweep", str(file.absolute().relative_to(tree)), *overrides]
    words += ["--address", "auto", *(["--workers", str(workers)] if workers is not None else [])]
    folder = sweep.output.path
    excludes = [*EXCLUDES, *([str(folder.relative_to(tree))] if folder.is_relative_to(tree) else [])]
    upload = measure(tree, excludes)
    excludes += upload.unreadable
    if (warning := large_parts(upload)) is not None:
        say(warning, file=sys.stderr)
    with _job_client(address) as client:
        _refuse_version(client, address)
        name, state = _name_for(client, f"{sweep.sweep_id}-{ray_package_hash(tree, excludes)[:8]}")
        if state is not None:
            say(f"{name}: was submitted before ({state})")
        else:
            _submit(
                client,
                entrypoint=shlex.join(words),
                submission_id=name,
                runtime_env={
                    "working_dir": str(tree), "excludes": excludes,
                    "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS), "PYTHONUNBUFFERED": "1"},
                },
                metadata={"sweep": sweep.sweep_id, "output": output},
            )  # fmt: skip
            say(f"{name}: was submitted")
        if detach:
            say(f"follow the job: supsup logs {name} --address {address}")
            say(f"stop the job:   supsup stop {name} --address {address}")
            return 0
        return _follow(client, name, address)


def _refuse_version(client: JobSubmissionClient, address: str) -> None:
    """Raises InputError if the cluster runs another version of Ray than this machine."""
    import ray

    version = ray_version_of(client)
    if version not in (None, ray.__version__):
        raise InputError(
            f"--address: the cluster at {address} runs Ray {version}, but this machine has Ray {ray.__version__}; "
            f"install the cluster's version with `pip install 'ray[default]=={version}'`"
        )


def _submit(client: JobSubmissionClient, **job: Any) -> str:
    """Submits a job, and returns its name. Waits until a cluster that has just been started can run jobs.

    Raises SupSupError if the cluster refuses the job, or cannot run jobs for START_SECONDS.
    """
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            return str(client.submit_job(**job))
        except RuntimeError as error:  # its text may be a traceback of the cluster
            if RAY_HAS_NO_AGENT not in str(error) or time.monotonic() > deadline:
                reason = str(error).strip().splitlines()[-1]
                raise SupSupError(
                    f"the cluster did not accept the job ({reason}); read the log of the cluster's dashboard"
                ) from error
        time.sleep(1)


def logs(job: str, address: str) -> int:
    """Prints the log of a job until the job ends. Returns the exit code for the job's final state.

    job: the job's name, or the beginning of the name. Raises InputError if the cluster has no such job.
    """
    with _job_client(address) as client:
        return _follow(client, _find_job(client, job), address)


def stop(job: str, address: str) -> int:
    """Stops a job, and waits until it has committed its finished work and has ended. Returns an exit code.

    job: the job's name, or the beginning of the name. Raises InputError if the cluster has no such job, and SupSupError
    if the job is still running after STOP_SECONDS + 30 seconds.
    """
    with _job_client(address) as client:
        name = _find_job(client, job)
        client.stop_job(name)
        deadline = time.monotonic() + STOP_SECONDS + 30
        while (state := client.get_job_status(name).value) not in _EXIT_CODES:
            if time.monotonic() > deadline:
                raise SupSupError(f"{name}: is still {state} after {STOP_SECONDS + 30} s; run `supsup stop` again")
            time.sleep(0.5)
    say(f"{name}: {state}; to continue the sweep, run the same `supsup submit` again")
    return 0


def drain(job: str, address: str) -> int:
    """Requests that the sweep of a Ray job finishes the current shards, starts no others, and ends.

    Returns an exit code. Raises InputError if the cluster has no such job, or if the job has ended or was not submitted
    by supsup.
    """
    with _job_client(address) as client:
        name = _find_job(client, job)
        info = client.get_job_info(name)
        if str(info.status.value) in _EXIT_CODES:
            raise InputError(f"{name}: has ended already ({info.status.value}); there is nothing to drain")
        return _run_beside(client, name, address, "drain")


def status(job: str, address: str, as_json: bool) -> int:
    """Prints the status of the sweep of a job, as `supsup status` prints it on the head node. Returns an exit code.

    Raises InputError if the cluster has no such job, or if it was not submitted by supsup.
    """
    with _job_client(address) as client:
        name = _find_job(client, job)
        if not as_json:
            say(f"{name}: {client.get_job_status(name).value}")
        return _run_beside(client, name, address, "status", *(["--json"] if as_json else []))


def _run_beside(client: JobSubmissionClient, name: str, address: str, verb: str, *options: str) -> int:
    """Runs `supsup VERB` for the sweep of a job on the head node, as a second job, and prints the log of this job.

    Returns the exit code of the second job. Raises InputError if supsup did not submit the first job.
    """
    info = client.get_job_info(name)
    if not info.metadata or "sweep" not in info.metadata:
        raise InputError(f"{name}: was not submitted by supsup; control it with `ray job`")
    python = shlex.split(info.entrypoint)[0]
    sweep, output = info.metadata["sweep"], f"output={info.metadata['output']}"
    words = [python, "-m", "orchestrator.cli", verb, sweep, output, *options]
    return _follow(client, _submit(client, entrypoint=shlex.join(words), metadata={"asks": name}), address)


def _check_plan(sweep: Sweep) -> None:
    """Raises InputError if a sweep cannot be planned.

    If planning needs a dataset that is not on this machine, prints a message to standard error and raises nothing. The
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
        say(
            f"the sweep was checked only in part, because its dataset cannot be used on this machine: {error}",
            file=sys.stderr,
        )


def _name_for(client: JobSubmissionClient, name: str) -> tuple[str, str | None]:
    """Returns the first name of NAME, NAME-2, NAME-3, … that no failed or stopped job has, and the state of its job.

    The state is None if no job has this name yet. A new job can then be submitted under this name.
    """
    states = _job_states(client)
    tried, number = name, 1
    while states.get(tried) in ("FAILED", "STOPPED"):
        number += 1
        tried = f"{name}-{number}"
    return tried, states.get(tried)


def _find_job(client: JobSubmissionClient, job: str) -> str:
    """Returns the name of a job: `job` itself, or the newest job of the sweep that `job` names in full or in part.

    Raises InputError if no job matches `job`, or if several jobs of sweeps with different names match.
    """
    jobs = {str(one.submission_id): one.metadata or {} for one in _jobs(client)}
    sweeps = {name: metadata.get("sweep", name) for name, metadata in jobs.items()}
    if job in sweeps:
        return job
    fitting = matching_names(job, list(dict.fromkeys(sweeps.values()))) or matching_names(job, list(sweeps))
    if not fitting:
        raise InputError(f"{job}: the cluster has no such job; its jobs are: {', '.join(sweeps) or 'none'}")
    if len({name.rpartition("-")[0] for name in fitting}) > 1:
        raise InputError(f"{job}: several sweeps match: {', '.join(fitting)}; type more of the name")
    return [name for name, sweep in sweeps.items() if sweep in fitting or name in fitting][-1]


def _jobs(client: JobSubmissionClient) -> list[JobDetails]:
    """Returns all submitted jobs, the oldest first."""
    found = [details for details in client.list_jobs() if details.submission_id]
    return sorted(found, key=lambda details: details.start_time or 0)


def _job_states(client: JobSubmissionClient) -> dict[str, str]:
    """Returns the state of every submitted job by name, oldest job first."""
    return {str(details.submission_id): str(details.status.value) for details in _jobs(client)}


def _follow(client: JobSubmissionClient, name: str, address: str) -> int:
    """Prints the log of a job until the job ends. Returns the exit code for the job's final state.

    Ctrl-C stops only the printing, not the job; the exit code is then 130.
    """

    async def print_log() -> None:
        async for text in client.tail_job_logs(name):
            say(text, end="", flush=True)

    try:
        asyncio.run(print_log())
        while (state := client.get_job_status(name).value) not in _EXIT_CODES:
            time.sleep(0.5)
    except KeyboardInterrupt:
        say(f"\nthe job continues; follow the job again with: supsup logs {name} --address {address}", file=sys.stderr)
        return 130
    if state != "SUCCEEDED":
        message = (client.get_job_info(name).message or "").splitlines()
        say(f"{name}: {state}{f': {message[0]}' if message else ''}", file=sys.stderr)
    return _EXIT_CODES[state]


@contextmanager
def _job_client(address: str) -> Iterator[JobSubmissionClient]:
    """Yields a client of the head node's job server. Raises InputError if the client cannot connect to the server."""
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    if not address.startswith(("http://", "https://")):
        raise InputError(f"--address: {address} must be the URL of the dashboard, such as http://127.0.0.1:8265")
    try:
        yield JobSubmissionClient(address)
    except (AuthenticationError, ConnectionError, RuntimeError, ValueError) as error:
        raise InputError(
            f"--address: the jobs of the cluster at {address} cannot be reached ({first_line(error)}); check three "
            "things: the URL is that of the head node's dashboard, such as http://127.0.0.1:8265; ray[default] is "
            "installed on this machine and on the head node; this machine has the cluster's token"
        ) from error
