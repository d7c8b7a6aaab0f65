"""A process of simulated workers that wait as long as a shard would take. It does not load torch."""

from __future__ import annotations

import heapq
import itertools
import time
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as ready
from typing import Any

from orchestrator.coordination.messages import Done, EvaluateJob, TrainJob
from orchestrator.records.facts import EvaluatedFacts, TrainedFacts
from orchestrator.records.rows import ShardTrained, TaskEvaluated
from supsup_core.evaluation.counts import ProtocolCounts


def serve(pipe: Connection, seconds: float) -> None:
    """Answers each received (worker, job) after `seconds`, until the pipe is closed."""
    due: list[tuple[float, int, int, Any]] = []
    numbers = itertools.count()
    while True:
        patience = max(0.0, due[0][0] - time.monotonic()) if due else None
        if ready([pipe], patience):
            try:
                worker, job = pipe.recv()
            except EOFError:
                return
            heapq.heappush(due, (time.monotonic() + seconds, next(numbers), worker, job))
        while due and due[0][0] <= time.monotonic():
            _, _, worker, job = heapq.heappop(due)
            pipe.send((worker, _reply(worker, job, seconds)))


CURVE = (tuple(100 * n for n in range(1, 11)), tuple(0.123456789 * n for n in range(1, 11)))


def _reply(worker: int, job: TrainJob | EvaluateJob, seconds: float) -> Done:
    """Returns a reply of realistic size, as from a worker that did the job."""
    now = time.time_ns() // 1_000_000
    if isinstance(job, EvaluateJob):
        counts = ProtocolCounts(10_000, 9_350, 9_350, 79, 79, {str(job.task): 79})
        evaluated = EvaluatedFacts(job.task, 0, {"paper": counts, "strict": counts})
        return Done(job.key, (TaskEvaluated(job.key, evaluated, "0" * 64, worker, now, seconds, 0),))
    return Done(
        job.key,
        tuple(ShardTrained(shard.key, _trained(shard.task), "0" * 64, worker, now, seconds, 0) for shard in job.shards),
    )


def _trained(task: int) -> TrainedFacts:
    return TrainedFacts(
        task=task, accuracy=0.935, curve=CURVE, num_images=128_000, num_bytes=34_424, weights_sha256="0" * 64,
        device="cpu", threads=1, torch="2.13.0+cpu", python="3.11.7",
    )  # fmt: skip
