"""What each verb of the command line does, with everything heavy already imported."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import FrameType
from typing import Any

from orchestrator import environment, status
from orchestrator.estimate import estimate_group
from orchestrator.files import owned
from orchestrator.launcher import prepare_data, run_local, run_ray
from orchestrator.monitor import Monitor
from orchestrator.plan import Group
from orchestrator.progress import Progress, duration
from orchestrator.report import Report, write_report
from orchestrator.state import GroupState
from orchestrator.store import ArtifactStore
from orchestrator.sweep import Sweep, all_sweeps, check_output, find_sweep, open_sweep
from orchestrator.tracking import Tracker, tracking_uri
from supsup_core.errors import InputError

log = logging.getLogger("supsup")

DONE, FAILED, INTERRUPTED = 0, 1, 130
"""Exit codes; bad input is 2."""


def plan(file: Path, overrides: Sequence[str], as_json: bool) -> int:
    """Print what a sweep would do and cost. Starts and writes nothing."""
    sweep = open_sweep(file, overrides)
    groups = sweep.plan()
    states = status.read_states(sweep)
    store = ArtifactStore(sweep.output / "store")
    workers = sweep.config.resources.num_workers
    rows = []
    for group in groups:
        state = states.get(group.group_id, GroupState())
        done = sum(store.has(shard.key) for shard in group.shards)
        tested = sum(e.key in state.evaluated or store.has(e.key) for e in group.evaluations)
        left = (len(group.shards) - done, len(group.evaluations) - tested)
        cost = estimate_group(group.experiment, state, left, len(group.shards), workers)
        rows.append(
            {
                "group_id": group.group_id, "seed": group.experiment.seed, "runs": [run.name for run in group.runs],
                "shards": len(group.shards), "shards_done": done,
                "evaluations": len(group.evaluations), "evaluations_done": tested,
                "estimate": asdict(cost),
            }
        )  # fmt: skip
    totals = {
        "seconds": sum(row["estimate"]["seconds"] for row in rows),
        "disk_bytes": sum(row["estimate"]["disk_bytes"] for row in rows),
        "memory_bytes": max(row["estimate"]["memory_bytes"] for row in rows),
    }
    if as_json:
        print(json.dumps({"sweep_id": sweep.sweep_id, "output": str(sweep.output), "num_workers": workers, "estimate": totals, "groups": rows}, indent=1))
        return DONE
    print(f"{sweep.sweep_id}: {sum(len(row['runs']) for row in rows)} runs in {len(rows)} training groups")
    for row in rows:
        print(
            f"  group {row['group_id']} (seed {row['seed']}): {row['shards']} shards, {row['shards_done']} already done; "
            f"{row['evaluations']} evaluations, {row['evaluations_done']} already done"
        )
        for name in row["runs"]:
            print(f"    {name}")
    print(
        f"estimated: {duration(totals['seconds'])} on {workers} workers ({rows[0]['estimate']['basis']}), "
        f"{totals['disk_bytes'] / 1e6:.1f} MB of disk, {totals['memory_bytes'] / 1e9:.1f} GB of memory"
    )
    print(f"output: {sweep.output}")
    return DONE


def sweep(file: Path, overrides: Sequence[str], local: bool, num_workers: int | None) -> int:
    """Run a sweep file to its end."""
    opened = open_sweep(file, overrides)
    if num_workers is not None:
        opened = replace(opened, config=replace(opened.config, resources=replace(opened.config.resources, num_workers=num_workers)))
    return run(opened, local)


def resume(wanted: str | None, output: Path, data: str | None, local: bool, num_workers: int | None) -> int:
    """Go on with a sweep from what is on disk."""
    found = find_sweep(output, wanted)
    config = found.config
    if data is not None:
        config = replace(config, data=str(Path(data).absolute()))
    if num_workers is not None:
        config = replace(config, resources=replace(config.resources, num_workers=num_workers))
    return run(replace(found, config=config), local)


def evaluate(wanted: str, overrides: Sequence[str], output: Path, local: bool) -> int:
    """Evaluate a sweep's trained masks with another inference, as new runs of the sweep."""
    found = find_sweep(output, wanted).with_inference(overrides)
    store = ArtifactStore(found.output / "store")
    groups = found.plan()
    missing = sum(not store.has(shard.key) for group in groups for shard in group.shards)
    if missing:
        raise InputError(
            f"{found.sweep_id}: {missing} shards are not trained; run `supsup resume {found.sweep_id}` first"
        )
    return run(found, local, groups)


def run(sweep: Sweep, local: bool, groups: Sequence[Group] | None = None) -> int:
    """Run what is left of a sweep, show it, project it, report it; returns the exit code."""
    groups = groups or sweep.plan()
    _refuse_hopeless(sweep, groups)
    prepare_data(groups, sweep.data_root)
    sweep.save(groups)
    signal.signal(signal.SIGTERM, _interrupt)
    with owned(sweep.path), _logging_to(sweep.path / "supsup.log"):
        described = environment.describe(sweep.folder)
        started = time.monotonic()
        interrupted = False
        with Progress() as progress:
            monitor = Monitor(sweep, groups, described, progress)
            monitor.start()
            try:
                if local:
                    run_local(sweep, groups, described)
                else:
                    run_ray(sweep, groups, described, sweep.config.resources.num_workers)
            except KeyboardInterrupt:
                interrupted = True
            tracker = monitor.finish()
        return _conclude(sweep, groups, monitor, tracker, interrupted, time.monotonic() - started)


def _refuse_hopeless(sweep: Sweep, groups: Sequence[Group]) -> None:
    """InputError for what would only fail later."""
    device = sweep.config.resources.device
    if device != "cpu":
        import torch

        try:
            torch.zeros(1, device=device)
        except (RuntimeError, AssertionError) as error:
            raise InputError(f"resources.device: {device!r} cannot be used here ({str(error).splitlines()[0]})") from error


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _conclude(
    sweep: Sweep, groups: Sequence[Group], monitor: Monitor, tracker: Tracker, interrupted: bool, seconds: float
) -> int:
    """Print the summary, attach the report, and choose the exit code."""
    now = monitor.status()
    report: Report | None = None
    if any(state.points for state in monitor.states.values()):
        report = write_report(sweep, groups, monitor.states)
        tracker.attach(report.files, "report")
    reused = sum(row.payload["seconds"] is None for state in monitor.states.values() for row in state.trained.values())
    print(f"\n{sweep.sweep_id}: {now.shards_done}/{now.shards} shards, {now.evaluations_done}/{now.evaluations} "
          f"evaluations in {duration(seconds)}" + (f" ({reused} shards found already trained)" if reused else ""))  # fmt: skip
    if report is not None:
        print(f"\n{report.text}\n")
    for group in now.groups:
        for lost in group.lost:
            print(f"made again: {lost}")
        for failure in group.failures:
            print(f"FAILED  {failure}")
    print(f"report:  {report.folder if report else '-'}")
    print(f"MLflow:  {tracking_uri(sweep.output)}  (open it with: supsup ui output={_shown(sweep.output)})")
    if interrupted:
        print(f"interrupted; everything finished is committed. Go on with: {resume_command(sweep)}")
        return INTERRUPTED
    failed = any(group.failures or group.state != "done" for group in now.groups)
    if failed:
        print(f"some runs failed; tracebacks are in the ledgers below {sweep.path / 'groups'}. "
              f"Mend the cause, then: {resume_command(sweep)}")  # fmt: skip
    return FAILED if failed else DONE


def resume_command(sweep: Sweep) -> str:
    """The command that goes on with a sweep from here."""
    return f"supsup resume {sweep.sweep_id} output={_shown(sweep.output)}"


def _shown(path: Path) -> str:
    """A path as a person here would type it."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


class _logging_to:
    """Log warnings of this project to standard error and all its messages to a file, for a while."""

    def __init__(self, path: Path) -> None:
        self._file = logging.FileHandler(path)
        self._file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        self._console = logging.StreamHandler(sys.stderr)
        self._console.setLevel(logging.WARNING)
        self._console.setFormatter(logging.Formatter("supsup: %(message)s"))

    def __enter__(self) -> None:
        log.setLevel(logging.INFO)
        log.propagate = False
        log.addHandler(self._file)
        log.addHandler(self._console)

    def __exit__(self, *_: object) -> None:
        log.removeHandler(self._file)
        log.removeHandler(self._console)
        self._file.close()
