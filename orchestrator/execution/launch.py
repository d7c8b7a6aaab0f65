"""Runs a sweep's training groups, either as Ray Tune trials or one after the other in this process."""

from __future__ import annotations

import contextlib
import importlib
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.base.environment import Environment, code_digest
from orchestrator.base.files import working_folder
from orchestrator.base.output_folder import STORED_STORE
from orchestrator.coordination.control_files import Requests, forget_waiting
from orchestrator.coordination.settings import GroupSettings, StorageSettings
from orchestrator.execution.drive import drive
from orchestrator.execution.open_coordinator import open_coordinator
from orchestrator.execution.worker import Worker
from orchestrator.execution.worker_pool import LocalPool
from orchestrator.records.ledgers.ledger import FencedError
from orchestrator.records.rows import LaunchEnvironment
from orchestrator.spec.sweep_config import Resources
from orchestrator.sweeps.sweep import Sweep
from orchestrator.sweeps.sweep_record import output_id_of
from orchestrator.sweeps.training_groups import Group, share_workers
from supsup_core.errors import SupSupError

if TYPE_CHECKING:
    from ray.tune import ResultGrid

    from orchestrator.execution.schedulers import InOrder, TrialWatch

_MAX_TRIAL_DEATHS = 20
"""The largest number of times that Ray Tune restarts a trial in one launch after the trial's process has died."""


def settings_of(sweep: Sweep, group: Group, environment: Environment, num_workers: int) -> GroupSettings:
    """Returns the settings of a group's coordinator and workers.

    environment: the machine and software of the launching process. num_workers: the largest number of workers for the
    group.
    """
    config = sweep.config
    return GroupSettings(
        group=group.planned(),
        folder=sweep.folder.group(group.group_id),
        storage=_storage_settings(sweep, group),
        environment=LaunchEnvironment(num_workers=num_workers, **asdict(environment)),
        is_trial=config.search is not None,
        origin=sweep.origin.sweep_id if sweep.origin is not None and group.experiment.allocation is not None else None,
        data_root=sweep.data_root,
        imports=tuple(config.imports),
        imports_folder=sweep.imports_folder,
        device=config.resources.device,
        threads=config.resources.threads,
        state_mb=config.resources.state_mb,
        deterministic=config.resources.deterministic,
        tf32=config.resources.tf32,
        tasks_at_once=tasks_at_once(config.resources, group, num_workers),
        commit_every=config.commit_every,
        code_digest=code_digest(),
        working_folder=working_folder(),
    )


def _storage_settings(sweep: Sweep, group: Group) -> StorageSettings | None:
    """Returns the storage settings of a group's coordinator and workers, or None if the sweep has no storage."""
    if sweep.storage is None:
        return None
    folder = sweep.folder.group(group.group_id)
    return StorageSettings(
        store=(sweep.storage / STORED_STORE).url,
        masks=(sweep.storage / folder.stored_masks_name).url,
        group=(sweep.storage / folder.stored_name).url,
        output_id=output_id_of(sweep.output),
        cache_bytes=sweep.cache_bytes,
        snapshot_every=sweep.config.snapshot_every,
    )


_MOST_AT_ONCE = 32
"""The largest number of tasks that a worker trains together by default. On an H200, an optimiser step of LeNet takes
0.44 ms for one task, 0.49 ms for 32 tasks and 0.82 ms for 64 tasks."""

_STACK_BYTES = 256 << 20
"""The largest number of bytes of memory for the tasks of a stack. A large net needs no stack, because one task keeps a
GPU busy."""

_TASK_BYTES = 16
"""Bytes of memory per weight and task in training: 4 each for the score, the optimiser's mean square, the masked weight
and the gradient."""


def tasks_at_once(resources: Resources, group: Group, num_workers: int) -> int:
    """Returns how many tasks a worker trains together as one stack.

    Returns 1 if the method cannot stack tasks. If the method can stack tasks, returns `resources.tasks_at_once` if this
    key is set. If the key is not set, a CPU trains one task at a time, because even a small net keeps a CPU core busy
    (docs/results/speed.md). A GPU trains an equal share of the group's tasks together, but at most _MOST_AT_ONCE tasks,
    and no more than fit into _STACK_BYTES.
    """
    experiment = group.experiment
    if not experiment.method.stacks:
        return 1
    if resources.tasks_at_once is not None:
        return resources.tasks_at_once
    if resources.device != "cuda":
        return 1
    weights = sum(layer.size for layer in experiment.net.layers(experiment.benchmark.input_shape))
    share = -(-len(group.shards) // num_workers)
    return max(1, min(_MOST_AT_ONCE, share, _STACK_BYTES // (_TASK_BYTES * weights)))


def take_stock(
    sweep: Sweep, groups: Sequence[Group], environment: Environment, cluster: str | None
) -> dict[str, GroupSettings]:
    """Records each group's plan in the group's ledger, and verifies the artifacts that the group needs.

    Call this function once per launch. Returns a mapping from the id of each group that has work left to the group's
    settings. If any trial of a search has work left, the mapping contains all trials of the search, because ASHA
    compares each trial with the others.

    cluster: the address of a Ray cluster, `local` for a new cluster on this machine, or None to run without Ray.
    """
    most = 1 if cluster is None else sweep.config.resources.num_workers
    unfinished = [group for group in groups if not _is_finished(settings_of(sweep, group, environment, most))]
    if unfinished and sweep.config.search is not None:
        unfinished = list(groups)
    shares = share_workers(unfinished, most)
    return {
        group.group_id: replace(settings_of(sweep, group, environment, shares[group.group_id]), continues_launch=True)
        for group in unfinished
    }


def _is_finished(settings: GroupSettings) -> bool:
    """Records a group's plan, and returns whether the group has no work left. If no work is left, also records the
    end."""
    coordinator = open_coordinator(settings)
    if coordinator.finished():
        coordinator.end()
        return True
    coordinator.close()
    return False


def launch(
    sweep: Sweep,
    unfinished: Mapping[str, GroupSettings],
    cluster: str | None,
    interrupted: Callable[[], bool] = lambda: False,
    on_connected: Callable[[], None] = lambda: None,
) -> None:
    """Runs each group until it is done, stopped, failed or paused. The group's ledger records any end except a pause.

    unfinished: maps a group's id to its settings. cluster: the address of a Ray cluster, `local` for a new cluster on
    this machine, or None to run without Ray. interrupted: a function that returns whether KeyboardInterrupt was raised
    in this process. on_connected: called once before the first job, as soon as this process is connected to Ray. Raises
    SupSupError on an error that stops all groups, such as a full disk.
    """
    if cluster is None:
        on_connected()
        for settings in unfinished.values():
            coordinator, pool = open_coordinator(settings), LocalPool(Worker(settings, 0), interrupted)
            drive(coordinator, pool, lambda progress: None, Requests.from_files(settings.folder))
    elif unfinished:
        run_on_ray(sweep, unfinished, cluster, on_connected)


def run_on_ray(
    sweep: Sweep, settings: Mapping[str, GroupSettings], cluster: str, on_connected: Callable[[], None] = lambda: None
) -> None:
    """Runs each group as one Ray Tune trial. Raises the first error that a trial could not record in its ledger.

    on_connected: see `launch`.
    """
    from orchestrator.execution import ray_session

    threading.Thread(target=_load_ahead, name="loading", daemon=True).start()
    with ray_session.connected(cluster, sweep.config.resources), tempfile.TemporaryDirectory() as scratch:
        on_connected()
        results = _tune(sweep, settings, scratch)
    _raise_first_error(sweep, results)


def _load_ahead() -> None:
    """Imports the modules that are needed after Ray has started. Runs in a thread while the main thread starts Ray."""
    with contextlib.suppress(Exception):  # the import in _tune() raises the same error
        importlib.import_module("orchestrator.execution.schedulers")


def _tune(sweep: Sweep, settings: Mapping[str, GroupSettings], scratch: str) -> ResultGrid:
    """Runs the trials with Ray Tune, and returns Ray Tune's results. scratch: a folder for Ray Tune's own files."""
    from ray import tune

    from orchestrator.execution.schedulers import TrialWatch
    from orchestrator.execution.tune_trial import drive_trial

    worker = {"CPU": float(sweep.config.resources.threads)}
    if sweep.config.resources.device == "cuda":
        worker["GPU"] = 1.0
    placements = {group_id: _placement(worker, mine.num_workers) for group_id, mine in settings.items()}
    watch = TrialWatch(sweep.folder, worker, list(placements.values()))
    tuner = tune.Tuner(
        tune.with_resources(
            tune.with_parameters(drive_trial, settings=dict(settings), resources=worker),
            lambda config: placements[config["group"]],
        ),
        param_space={"group": tune.grid_search(list(settings))},
        tune_config=tune.TuneConfig(scheduler=_scheduler(sweep, settings, watch)),
        run_config=tune.RunConfig(
            name=sweep.sweep_id, storage_path=scratch, verbose=0,
            failure_config=tune.FailureConfig(max_failures=_MAX_TRIAL_DEATHS),
            checkpoint_config=tune.CheckpointConfig(num_to_keep=1),
        ),
    )  # fmt: skip
    try:
        return tuner.fit()
    finally:
        forget_waiting(sweep.folder)


def _scheduler(sweep: Sweep, settings: Mapping[str, GroupSettings], watch: TrialWatch) -> InOrder:
    """Returns the scheduler of a sweep. The trials of a search are stopped by ASHA."""
    from orchestrator.execution.schedulers import InOrder, OrderedASHA

    if sweep.config.search is None:
        return InOrder(watch)
    num_tasks = max(mine.group.size.shards for mine in settings.values())
    stop_files: dict[str, Path] = {group_id: mine.folder.stop_file for group_id, mine in settings.items()}
    return InOrder(watch, OrderedASHA(sweep.config.search, num_tasks, stop_files))


def _placement(worker: Mapping[str, float], num_workers: int) -> Any:
    """Returns the placement group of a trial: one bundle for the trial's process and one for each worker.

    worker: the CPUs and GPUs of each worker. The trial's process writes the ledger to the output folder, so the trial's
    process must run on the same node as the caller of this function. Workers may be on any node.
    """
    import ray
    from ray import tune

    here = {"ray.io/node-id": ray.get_runtime_context().get_node_id()}
    driver = {f"node:{ray.util.get_node_ip_address()}": 0.001}
    anywhere: list[dict[str, str]] = [{} for _ in range(num_workers)]
    return tune.PlacementGroupFactory([driver, *[dict(worker)] * num_workers], bundle_label_selector=[here, *anywhere])


def _raise_first_error(sweep: Sweep, results: ResultGrid) -> None:
    """Raises the first error that a trial reported or raised. Does nothing if no trial had an error."""
    from orchestrator.execution.tune_trial import ERROR

    for result in results:
        error = (result.metrics or {}).get(ERROR)
        if isinstance(error, FencedError):
            raise SupSupError(
                f"{sweep.sweep_id}: another process has taken over this sweep; this process writes nothing more"
            ) from error
        if isinstance(error, SupSupError):
            raise error
        if result.error is not None:
            raise result.error


def prepare_data(groups: Sequence[Group], root: Path | None) -> None:
    """Verifies each dataset of the groups once, before training starts.

    root: the folder of the datasets; None means the user's cache. Raises InputError if a dataset is missing, and
    CorruptError if a dataset is damaged.
    """
    for source in {group.experiment.benchmark.source() for group in groups}:
        source.verify(root)
