"""Thin Ray actors around the plain coordinator and worker, and the pool that talks to them."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, GetTimeoutError, RayActorError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestrator.coordination.control_files import Asked
from orchestrator.execution.drive import WorkerPool, drive, open_coordinator
from orchestrator.records.object_storage import PATIENCE_SECONDS as STORAGE_SECONDS
from orchestrator.spec.search_space import ACCURACY, TASKS
from supsup_core.errors import SupSupError

if TYPE_CHECKING:  # see trial: the actors alone import it
    from orchestrator.coordination.messages import Job, Outcome
    from orchestrator.execution.worker import Worker

PATIENCE_SECONDS = 30.0
"""How long a worker may take to start in the trial's placement group before it is looked for a place elsewhere too."""

CALL_SECONDS = 120.0
"""How long a coordinator may take to answer, restarts included, where no storage keeps it waiting."""

VERIFIED_PER_SECOND = 10e6
"""Bytes that a coordinator reads and verifies at least, of what is stored, before it answers at all."""


class CoordinatorActor:
    """A coordinator of its own process. Restarted after a crash, it reads its state from the ledger."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._coordinator = open_coordinator(settings)

    def call(self, method: str, arguments: tuple[Any, ...]) -> Any:
        return getattr(self._coordinator, method)(*arguments)


class WorkerActor:
    """A worker of its own process."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._settings = settings
        self._worker: Worker | None = None
        with contextlib.suppress(Exception):  # run() meets the same error, and can say so
            self._prepared()

    def _prepared(self) -> Worker:
        if self._worker is None:
            from orchestrator.execution.worker import Worker

            worker = Worker(self._settings)
            worker.prepare()
            self._worker = worker
        return self._worker

    def run(self, job: Job) -> Outcome:
        try:
            worker = self._prepared()
        except Exception as error:  # noqa: BLE001 - a user's module may raise anything on import
            from orchestrator.execution.worker import failure

            return failure(job, error)
        return worker.run(job)


_CoordinatorHandle: Any = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=0)(CoordinatorActor)
_WorkerHandle: Any = ray.remote(max_restarts=0)(WorkerActor)


class RemoteCoordinator:
    """Calls a CoordinatorActor, on this process's node; its calls are idempotent, so one that was cut short is made
    again."""

    def __init__(self, settings: dict[str, Any]) -> None:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._stores = [Path(settings[name]) for name in ("store", "versions")]
        self._call_seconds = CALL_SECONDS + (STORAGE_SECONDS if settings["storage"] else 0)
        self._actor = _CoordinatorHandle.options(scheduling_strategy=here).remote(settings)

    def _call(self, method: str, *arguments: Any) -> Any:
        started = time.monotonic()
        while True:
            try:
                return ray.get(self._actor.call.remote(method, arguments), timeout=self._call_seconds)
            except (RayActorError, GetTimeoutError) as error:
                if isinstance(error, (RayTaskError, ActorDiedError)):
                    raise
                waited = time.monotonic() - started
                if waited > self._patience():
                    raise SupSupError(
                        f"the coordinator has not answered for {waited:.0f} s; what is committed stays"
                    ) from error
                time.sleep(0.2)

    def _patience(self) -> float:
        """How long to wait for an answer, by what a coordinator that was started again has to verify."""
        files = (path for store in self._stores for path in store.glob("??/*.safetensors"))
        stored = 0
        for path in files:
            with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                stored += path.stat().st_size
        return self._call_seconds + stored / VERIFIED_PER_SECOND

    def next_jobs(self, idle: Sequence[int], exclude: Sequence[str]) -> list[Job]:
        jobs: list[Job] = self._call("next_jobs", list(idle), list(exclude))
        return jobs

    def report(self, outcome: Outcome) -> None:
        self._call("report", outcome)

    def pause(self) -> None:
        self._call("pause")

    def stop(self) -> None:
        self._call("stop")

    def cancel(self, tasks: Sequence[int]) -> list[str]:
        jobs: list[str] = self._call("cancel", list(tasks))
        return jobs

    def note_stalled(self, key: str, worker: int, seconds: float, usual_seconds: float | None) -> None:
        self._call("note_stalled", key, worker, seconds, usual_seconds)

    def judged(self) -> list[tuple[int, float]]:
        points: list[tuple[int, float]] = self._call("judged")
        return points

    def finished(self) -> bool:
        return bool(self._call("finished"))

    def progress(self) -> dict[str, float]:
        counts: dict[str, float] = self._call("progress")
        return counts

    def end(self) -> str:
        return str(self._call("end"))


class ActorPool(WorkerPool):
    """Worker actors in the placement group of the trial that makes the pool, as long as that has room for them.

    Where nodes are lost, Ray moves what the group had there together or not at all. So a worker that has found no place
    in it for a while is looked for one anywhere in the cluster, and the first to be there is taken.
    """

    def __init__(self, settings: dict[str, Any], num_workers: int, per_worker: dict[str, float]) -> None:
        self.num_workers = num_workers
        self._settings = settings
        self._options = {"num_cpus": per_worker.get("CPU", 0), "num_gpus": per_worker.get("GPU", 0)}
        self._starting: dict[int, list[tuple[Any, Any]]] = {}
        self._patience: dict[int, float] = {}
        self._actors: list[Any] = [None] * num_workers
        for number in range(num_workers):
            self._restart(number)
        self._running: dict[Any, tuple[int, Job]] = {}

    def _restart(self, number: int) -> None:
        self._starting[number] = []
        self._patience[number] = time.monotonic() + PATIENCE_SECONDS
        self._start(number)

    def _start(self, number: int, **where: str) -> None:
        actor = _WorkerHandle.options(**self._options, **where).remote({**self._settings, "number": number})
        self._starting[number].append((actor, actor.__ray_ready__.remote()))

    def absent(self) -> set[int]:
        for number, candidates in list(self._starting.items()):
            ready, _ = ray.wait([there for _, there in candidates], timeout=0)
            if ready:
                del self._starting[number]
                for actor, there in candidates:
                    if there == ready[0]:
                        self._actors[number] = actor
                    else:
                        ray.kill(actor)
            elif time.monotonic() > self._patience[number]:
                self._patience[number] = math.inf
                self._start(number, scheduling_strategy="SPREAD")
        return set(self._starting)

    def submit(self, worker: int, job: Job) -> None:
        self._running[self._actors[worker].run.remote(job)] = (worker, job)

    def abandon(self, worker: int) -> None:
        ray.kill(self._actors[worker])

    def wait(self, timeout: float) -> list[tuple[int, Outcome]]:
        starting = [there for candidates in self._starting.values() for _, there in candidates]
        ready, _ = ray.wait([*self._running, *starting], num_returns=1, timeout=timeout)
        return [found for reference in ready if reference in self._running for found in self._collect(reference)]

    def _collect(self, reference: Any) -> list[tuple[int, Outcome]]:
        worker, job = self._running.pop(reference)
        try:
            outcome = ray.get(reference, timeout=CALL_SECONDS)
            if outcome is not True:  # which only __ray_ready__ gives
                return [(worker, outcome)]
            cause = {"reason": "the worker could not be reached for a while"}
        except ActorUnavailableError:
            # What became of it Ray knows later, and then says so to whoever asks the actor for anything.
            self._running[self._actors[worker].__ray_ready__.remote()] = (worker, job)
            return []
        except RayActorError as error:
            cause = _cause_of(error)
        except RayTaskError as error:
            return [
                (worker, {"status": "failed", "key": job["key"], "error": str(error.cause), "traceback": str(error)})
            ]
        ray.kill(self._actors[worker])
        self._restart(worker)
        return [(worker, {"status": "lost", "key": job["key"], **cause})]


_NODE_DIED = "its node has died"
"""What Ray 2.60 says where an actor's node is gone."""


_KILLED_FOR_MEMORY = "running low on memory"
"""What it says where its monitor has killed a worker before the machine runs out of memory."""


def _cause_of(error: RayActorError) -> dict[str, Any]:
    """Why a worker died, in Ray's words, and whether with its node, in which the job has no part, or for its memory."""
    text = str(error)
    told = [line.strip() for line in text.splitlines() if line.strip() and ": " not in line[:20]]
    return {
        "reason": told[-1] if told else text,
        "node_lost": error.preempted or _NODE_DIED in text,
        "out_of_memory": _KILLED_FOR_MEMORY in text,
    }


def drive_trial(config: dict[str, Any], settings: dict[str, Any], bundle: dict[str, float]) -> None:
    """A Ray Tune trial: run the group that `config` names, with workers of `bundle` resources each."""
    from ray import tune

    mine = settings[config["group"]]
    num_workers = mine["environment"]["num_workers"]
    coordinator = RemoteCoordinator(mine)
    report: Callable[[dict[str, float]], None] = tune.report
    if not mine["search"]:
        drive(coordinator, ActorPool(mine, num_workers, bundle), report, Asked.by_files(mine))
        return
    tell = _telling(coordinator, report)
    tell({})  # what earlier launches found, before any more is trained: by it the others are judged
    if coordinator.finished():
        coordinator.end()
        return
    pool = ActorPool(mine, num_workers, bundle)
    drive(coordinator, pool, tell, Asked.by_files(mine), every=0)


def _telling(
    coordinator: RemoteCoordinator, report: Callable[[dict[str, float]], None]
) -> Callable[[dict[str, float]], None]:
    """Progress for a search's scheduler: each time the group is judged, once."""
    told = 0

    def tell(progress: dict[str, float]) -> None:
        nonlocal told
        for tasks, accuracy in coordinator.judged()[told:]:
            report({TASKS: tasks, ACCURACY: accuracy})
            told += 1

    return tell
