"""A pool of workers that run as Ray actors. All workers import this module, so it does not import Ray Tune."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, final

import ray
from ray.exceptions import ActorUnavailableError, OutOfMemoryError, RayActorError, RayError, RayTaskError

from orchestrator.base.environment import check_code
from orchestrator.base.library_internals import ray_death_of
from orchestrator.base.wording import first_line
from orchestrator.coordination.messages import Failed, Job, Lost, Reply
from orchestrator.coordination.settings import GroupSettings
from orchestrator.execution.cluster_room import RoomWatch
from orchestrator.execution.worker_pool import WorkerPool, WorkerReply

if TYPE_CHECKING:  # only the workers' processes load torch
    from orchestrator.execution.worker import Worker

START_SECONDS = 30.0
"""The seconds that a worker's actor may take to start in the trial's placement group. After this time, the pool starts
a second actor for the worker anywhere in the cluster."""

REPLY_SECONDS = 120.0
"""The time limit in seconds for fetching a reply that is ready."""


class WorkerActor:
    """The class of the Ray actors. Each actor runs one worker in a separate process."""

    def __init__(self, settings: GroupSettings, number: int) -> None:
        self._settings = settings
        self._number = number
        self._worker: Worker | None = None
        with contextlib.suppress(Exception):  # run() tries again, and returns the error as a Failed reply
            self._prepare()

    def _prepare(self) -> Worker:
        if self._worker is None:
            check_code(self._settings.code_digest)
            if self._settings.working_folder is not None:
                with contextlib.suppress(OSError):  # on another node, the folder may not exist
                    os.chdir(self._settings.working_folder)
            from orchestrator.execution.worker import Worker

            worker = Worker(self._settings, self._number)
            worker.prepare()
            self._worker = worker
        return self._worker

    def run(self, job: Job) -> Reply:
        """Does one job and returns the reply. Returns a Failed reply if the worker cannot be prepared."""
        try:
            worker = self._prepare()
        except Exception as error:  # noqa: BLE001 - a user's module may raise anything on import
            from orchestrator.execution.worker import failed_reply

            return failed_reply(job, error)
        return worker.run(job)


_RemoteWorker: Any = ray.remote(max_restarts=0)(WorkerActor)


class _Starting(NamedTuple):
    """A starting actor, and a Ray object reference that becomes ready when the actor has started."""

    actor: Any
    ready: Any


class _InFlight(NamedTuple):
    worker: int
    job: Job


@final
class ActorPool(WorkerPool):
    """A pool of worker actors in the placement group of the trial that creates the pool.

    When nodes are lost, Ray reschedules a placement group as a whole or not at all. Therefore, if a worker's actor has
    not started within START_SECONDS, the pool starts a second actor for this worker anywhere in the cluster. The pool
    uses the actor that starts first, and kills the other actor.
    """

    def __init__(
        self,
        settings: GroupSettings,
        resources: Mapping[str, float],
        actor_class: Any = None,
        watch: RoomWatch | None = None,
    ) -> None:
        """resources: the CPUs and GPUs of each worker. actor_class: a Ray remote class; None means WorkerActor. watch:
        receives a message about workers that do not start."""
        self.num_workers = settings.num_workers
        self._watch = watch
        self._settings = settings
        self._actor_class = actor_class or _RemoteWorker
        self._options = {"num_cpus": resources.get("CPU", 0), "num_gpus": resources.get("GPU", 0)}
        self._starting: dict[int, list[_Starting]] = {}
        self._elsewhere_at: dict[int, float] = {}
        self._actors: list[Any] = [None] * self.num_workers
        for number in range(self.num_workers):
            self._restart(number)
        self._in_flight: dict[Any, _InFlight] = {}

    def _restart(self, number: int) -> None:
        self._starting[number] = []
        self._elsewhere_at[number] = time.monotonic() + START_SECONDS
        self._start(number)

    def _start(self, number: int, **where: str) -> None:
        actor = self._actor_class.options(**self._options, **where).remote(self._settings, number)
        self._starting[number].append(_Starting(actor, actor.__ray_ready__.remote()))

    def absent(self) -> set[int]:
        for number, candidates in list(self._starting.items()):
            ready, _ = ray.wait([candidate.ready for candidate in candidates], timeout=0)
            if ready:
                del self._starting[number]
                for candidate in candidates:
                    if candidate.ready == ready[0]:
                        self._actors[number] = candidate.actor
                    else:
                        ray.kill(candidate.actor)
            elif time.monotonic() > self._elsewhere_at[number]:
                self._elsewhere_at[number] = math.inf
                self._start(number, scheduling_strategy="SPREAD")
        if self._watch is not None:
            self._watch.update(self._who_waits())
        return set(self._starting)

    def _who_waits(self) -> str | None:
        """Returns the start of a message about missing workers, or None if no worker is missing."""
        if not self._starting:
            return None
        present = self.num_workers - len(self._starting)
        works = f" works with {present} of {self.num_workers} workers, and" if present else ""
        return f"training group {self._settings.folder.group_id}{works} has waited"

    def submit(self, worker: int, job: Job) -> None:
        self._in_flight[self._actors[worker].run.remote(job)] = _InFlight(worker, job)

    def abandon(self, worker: int) -> None:
        ray.kill(self._actors[worker])

    def wait(self, timeout: float) -> list[WorkerReply]:
        starting = [candidate.ready for candidates in self._starting.values() for candidate in candidates]
        ready, _ = ray.wait([*self._in_flight, *starting], num_returns=1, timeout=timeout)
        replies = [self._collect(reference) for reference in ready if reference in self._in_flight]
        return [reply for reply in replies if reply is not None]

    def _collect(self, reference: Any) -> WorkerReply | None:
        """Returns the reply to the job that belongs to a ready Ray object reference.

        Returns None if Ray cannot reach the worker's actor at the moment. If the actor died, or if the reply was lost
        or cannot be fetched within REPLY_SECONDS, returns a Lost reply and replaces the actor by a new one.
        """
        worker, job = self._in_flight.pop(reference)
        try:
            reply = ray.get(reference, timeout=REPLY_SECONDS)
            if reply is not True:  # True is the reply of __ray_ready__, called below
                return WorkerReply(worker, reply)
            lost = Lost(job.key, job.kind, "Ray could not reach the worker for a while")
        except ActorUnavailableError:
            # This call returns True if the actor is alive. If the actor died, it raises RayActorError.
            self._in_flight[self._actors[worker].__ray_ready__.remote()] = _InFlight(worker, job)
            return None
        except (RayActorError, OutOfMemoryError) as error:
            death = ray_death_of(error)
            lost = Lost(job.key, job.kind, death.reason, death.node_lost, death.out_of_memory)
        except RayTaskError as error:
            return WorkerReply(worker, Failed(job.key, job.kind, str(error.cause), str(error)))
        except RayError as error:  # the reply was lost with its node, or did not arrive in time
            lost = Lost(job.key, job.kind, f"the worker's reply cannot be fetched: {first_line(error)}")
        ray.kill(self._actors[worker])
        self._restart(worker)
        return WorkerReply(worker, lost)
