"""What a coordinator and a worker tell each other: jobs, and what became of them."""

from __future__ import annotations

from typing import Any

from orchestrator.records.artifact_store import Artifact

Job = dict[str, Any]
"""A job, as the coordinator makes it: kind, key, worker (its number), and what the kind needs."""
Outcome = dict[str, Any]
"""What became of a job: status (done, busy, corrupt, failed, lost), key, and what the status needs. Of shards and
evaluations that are done, `results` (see `result_of`)."""


def result_of(artifact: Artifact, made: dict[str, Any] | None = None) -> dict[str, Any]:
    """What there is to record of a shard or an evaluation that is done, from what was stored of it; `made` (worker,
    started_ms, seconds, resumed_at) unless it was found.

    `resumed_at`: the batches of its training that an earlier worker had done; `seconds` includes those.
    """
    found = {"worker": None, "started_ms": None, "seconds": None, "resumed_at": None}
    return {"key": artifact.key, "facts": artifact.facts, "sha256": artifact.sha256, **(made or found)}
