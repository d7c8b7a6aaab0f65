"""Running groups: as Ray Tune trials, or one after the other in this process."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import secrets
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from orchestrator.coordination.control_files import Asked
from orchestrator.execution.drive import LocalPool, drive, open_coordinator
from orchestrator.records.ledger import FencedError
from orchestrator.spec.sweep_config import Resources
from orchestrator.sweeps.sweep import Sweep, place_of
from orchestrator.sweeps.training_groups import Group, share_workers
from supsup_core.errors import InputError, SupSupError


def settings_of(sweep: Sweep, group: Group, environment: dict[str, Any], num_workers: int) -> dict[str, Any]:
    """Plain values that a coordinator and its workers need, absolute paths only."""
    config = sweep.config
    return {
        "group": group.to_node(),
        "ledger": str(sweep.ledger_path(group.group_id)),
        "store": str(sweep.output / "store"),
        "versions": str(sweep.ledger_path(group.group_id).parent / "masks"),
        "pause": str(sweep.pause_path),
        "stop": str(sweep.stop_path(group.group_id)),
        "cancel": str(sweep.cancel_path(group.group_id)),
        "search": sweep.config.search is not None,
        "storage": _places(sweep, group),
        "environment": {**environment, "num_workers": num_workers},
        "data_root": str(sweep.data_root) if sweep.data_root else None,
        "imports": config.imports,
        "folder": str(sweep.folder),
        "device": config.resources.device,
        "threads": config.resources.threads,
        "state_mb": config.resources.state_mb,
        "deterministic": config.resources.deterministic,
        "tf32": config.resources.tf32,
        "tasks_at_once": tasks_at_once(config.resources, group, num_workers),
        "commit_every": config.commit_every,
    }


def _places(sweep: Sweep, group: Group) -> dict[str, Any] | None:
    """Where in the sweep's storage, if it has one, a group keeps what it has in files here."""
    if sweep.storage is None:
        return None
    mine = sweep.storage / f"sweeps/{sweep.sweep_id}/groups/{group.group_id}"
    return {
        "store": (sweep.storage / "store").url,
        "versions": (mine / "masks").url,
        "ledger": mine.url,
        "place": place_of(sweep.output),
        "cache_bytes": sweep.cache_bytes,
        "snapshot_every": sweep.config.snapshot_every,
    }


_MOST_AT_ONCE = 32
"""On an H200 a step of LeNet takes 0.44 ms for one task, 0.49 for 32 and 0.82 for 64."""

_STACK_BYTES = 256 << 20
"""What a stack of tasks may take: small nets leave a GPU idle, large ones do not."""

_TASK_BYTES = 16
"""Bytes a weight of one task in training: score, mean square, effective weight, gradient."""


def tasks_at_once(resources: Resources, group: Group, num_workers: int) -> int:
    """How many tasks a worker trains together: as many as the sweep says, or as pay. On a CPU that is one, for a small
    net's step keeps a core busy (docs/results/speed.md); on a GPU as many as it takes to do the same."""
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
    sweep: Sweep, groups: Sequence[Group], environment: dict[str, Any], cluster: str | None
) -> dict[str, dict[str, Any]]:
    """The settings of every group that has work left; while a search has any, of all its trials, by which the others
    are judged. Verifies every artifact that is there."""
    most = 1 if cluster is None else sweep.config.resources.num_workers
    unfinished = [group for group in groups if not _settled(settings_of(sweep, group, environment, most))]
    if unfinished and sweep.config.search is not None:
        unfinished = list(groups)
    shares = share_workers(unfinished, most)
    return {group.group_id: settings_of(sweep, group, environment, shares[group.group_id]) for group in unfinished}


def launch(
    sweep: Sweep,
    unfinished: dict[str, dict[str, Any]],
    cluster: str | None,
    interrupted: Callable[[], bool] = lambda: False,
) -> None:
    """Run groups to their end; returns when each is done, was stopped or has failed, as its ledger says. `interrupted`:
    whether KeyboardInterrupt was raised in this process."""
    if cluster is None:
        for settings in unfinished.values():
            coordinator, pool = open_coordinator(settings), LocalPool(settings, interrupted)
            drive(coordinator, pool, lambda progress: None, Asked.by_files(settings))
    elif unfinished:
        run_ray(sweep, unfinished, cluster)


def _settled(settings: dict[str, Any]) -> bool:
    """Take stock of a group; whether nothing was left to do."""
    coordinator = open_coordinator(settings)
    if coordinator.finished():
        coordinator.end()
        return True
    coordinator.close()
    return False


def run_ray(sweep: Sweep, settings: dict[str, dict[str, Any]], cluster: str) -> None:
    """Run each group as one Ray Tune trial.

    Raises what a trial raised beyond the failures that its ledger records: SupSupError where that is told in words.
    """
    bundle = {"CPU": float(sweep.config.resources.threads)}
    if sweep.config.resources.device == "cuda":
        bundle["GPU"] = 1.0
    num_workers = {group_id: found["environment"]["num_workers"] for group_id, found in settings.items()}
    search, scheduler = sweep.config.search, None
    if search is not None:
        from orchestrator.execution.asha import LedgeredASHA

        num_tasks = max(found["group"]["size"][0] for found in settings.values())
        stop_files = {group_id: Path(found["stop"]) for group_id, found in settings.items()}
        scheduler = LedgeredASHA(search, num_tasks, stop_files)
    _configure_ray()
    threading.Thread(target=_load_ahead, name="loading", daemon=True).start()
    with _connected(cluster, sweep.config.resources), tempfile.TemporaryDirectory() as scratch:
        from ray import tune

        from orchestrator.execution.ray_actors import drive_trial

        places = {group_id: _placement([bundle] * number) for group_id, number in num_workers.items()}
        tuner = tune.Tuner(
            tune.with_resources(
                tune.with_parameters(drive_trial, settings=settings, bundle=bundle),
                lambda config: places[config["group"]],
            ),
            param_space={"group": tune.grid_search(list(settings))},
            tune_config=tune.TuneConfig(scheduler=scheduler),
            run_config=tune.RunConfig(
                name=sweep.sweep_id, storage_path=scratch, verbose=0,
                failure_config=tune.FailureConfig(max_failures=3),
                checkpoint_config=tune.CheckpointConfig(num_to_keep=1),
            ),
        )  # fmt: skip
        results = tuner.fit()
    for error in results.errors:
        cause = getattr(error, "cause", None) or error
        if FencedError.__name__ in str(error):
            raise SupSupError(
                f"{sweep.sweep_id}: another process has gone on with this; nothing more is written from here"
            ) from error
        if isinstance(cause, SupSupError):
            raise SupSupError(str(cause)) from error
        raise error


def _configure_ray() -> None:
    """Set what Ray and Ray Tune read when they are loaded, or later, where the user has not."""
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")


def _load_ahead() -> None:
    """Load what is needed once Ray is there, while it starts in processes of its own and this one waits."""
    with contextlib.suppress(Exception):  # run_ray() meets the same error, and can say so
        importlib.import_module("ray.tune")
        importlib.import_module("orchestrator.execution.ray_actors")


@contextlib.contextmanager
def _connected(cluster: str, resources: Resources) -> Iterator[None]:
    """Be connected to a Ray cluster for a while. `local`: one of this process's own, with room for all workers, quiet
    and gone afterwards. InputError where there is none at the address, or its token is another."""
    import ray

    ours = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    own: dict[str, Any] = {}
    if cluster == "local":
        os.environ.setdefault("RAY_prestart_worker_first_driver", "0")  # workers that no actor ever takes
        num_cpus = max(resources.num_workers * resources.threads, os.cpu_count() or 1)
        own = {"num_cpus": num_cpus, "include_dashboard": False}
        _keep_token_private()
    try:
        ray.init(address=cluster, log_to_driver=False, logging_level=logging.ERROR, configure_logging=True, **own)
    except (ConnectionError, ValueError, RuntimeError, ray.exceptions.AuthenticationError) as error:
        if cluster == "local":
            raise
        raise InputError(
            f"--address: no Ray cluster to be had at {cluster} ({str(error).splitlines()[0]}); "
            "look with `ray status --address` and at RAY_AUTH_TOKEN_PATH, or leave the address out"
        ) from error
    for number, handler in ours.items():
        signal.signal(number, handler)  # Ray has put its own in their place
    try:
        yield
    finally:
        ray.shutdown()


def _keep_token_private() -> None:
    """A Ray of our own lets nobody in without the user's token. See to it that nobody else can read that: Ray would
    make the file, but readable by all."""
    if os.environ.get("RAY_AUTH_MODE", "token") != "token" or "RAY_AUTH_TOKEN" in os.environ:
        return
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            if path.stat().st_mode & 0o077:
                path.chmod(0o600)
            return
        with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
            file.write(secrets.token_hex(32))
    except FileExistsError:
        if not path.is_file():
            raise InputError(
                f"{path.parent}: is no folder; Ray's token is kept there, or where RAY_AUTH_TOKEN_PATH says"
            ) from None
    except OSError as error:
        raise InputError(
            f"{path}: Ray's token cannot be kept there ({error.strerror}); set RAY_AUTH_TOKEN_PATH to a file of yours"
        ) from error


def _placement(workers: list[dict[str, float]]) -> Any:
    """The bundles of a trial: one for what drives it and writes its ledger, on the node that this process runs on, for
    there the ledger is; and one for each worker, anywhere."""
    import ray
    from ray import tune

    here = {"ray.io/node-id": ray.get_runtime_context().get_node_id()}
    driver = {f"node:{ray.util.get_node_ip_address()}": 0.001}
    anywhere: list[dict[str, str]] = [{} for _ in workers]
    return tune.PlacementGroupFactory([driver, *workers], bundle_label_selector=[here, *anywhere])


def prepare_data(groups: Sequence[Group], root: Path | None) -> None:
    """Verify every dataset once before anything starts; InputError or CorruptError otherwise."""
    for source in {group.experiment.benchmark.source() for group in groups}:
        source.verify(root)
