"""Processes whose workers only wait for as long as a shard would take. They import nothing of the science."""

from __future__ import annotations

import heapq
import itertools
import time
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as ready
from typing import Any


def serve(pipe: Connection, seconds: float) -> None:
    """Answer each (worker, job) `seconds` after it came, until the pipe is closed."""
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
            pipe.send((worker, _outcome(worker, job, seconds)))


def _outcome(worker: int, job: dict[str, Any], seconds: float) -> dict[str, Any]:
    """What a worker would have come back with, of the size it would have had."""
    made = {"sha256": "0" * 64, "worker": worker, "started_ms": time.time_ns() // 1_000_000, "seconds": seconds}
    made["resumed_at"] = 0
    if job["kind"] == "evaluate":
        task = job["task"]
        counts: dict[str, Any] = {"images": 10_000, "correct": 9_350, "correct_and_right_task": 9_350}
        counts |= {"decisions": 79, "right_task": 79, "confusion": {str(task): 79}}
        facts = {"kind": "evaluated", "task": task, "state_bytes": 0, "results": {"paper": counts, "strict": counts}}
        return {"status": "done", "key": job["key"], "results": [{"key": job["key"], "facts": facts, **made}]}
    curve = [[100 * n for n in range(1, 11)], [0.123456789 * n for n in range(1, 11)]]
    results = [
        {
            "key": shard["key"],
            "facts": {
                "kind": "trained", "task": shard["task"], "accuracy": 0.935, "curve": curve, "num_images": 128_000,
                "num_bytes": 34_424, "shared_bytes": 0, "weights_sha256": "0" * 64, "device": "cpu", "threads": 1,
                "tf32": False, "tasks_at_once": 1, "torch": "2.13.0+cpu", "python": "3.11.7",
            },
            **made,
        }
        for shard in job["shards"]
    ]  # fmt: skip
    return {"status": "done", "key": job["key"], "results": results}
