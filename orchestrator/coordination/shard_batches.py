"""Divides the shards of a training group into stacks. One job trains all shards of a stack together.

The code of this module calls a stack a batch.
"""

from __future__ import annotations

import bisect
from collections.abc import Collection, Container, Iterator, Sequence
from typing import final

from orchestrator.base.keys import content_key
from orchestrator.records.planned_group import Shard


def job_key(batch: Sequence[Shard]) -> str:
    """Returns the key of the job that trains these shards. For a single shard, this is the shard's own key."""
    keys = [shard.key for shard in batch]
    return keys[0] if len(keys) == 1 else content_key(keys)


@final
class ShardBatches:
    """The shards of a group, divided into stacks of `at_once` shards.

    The full list of shards is divided, including trained shards. The stacks are therefore the same after a crash.
    Stacks that did not fit into memory are halved, and then cancelled shards are removed.
    """

    def __init__(self, shards: Sequence[Shard], at_once: int) -> None:
        self._shards = shards
        self._at_once = at_once
        self._batches: list[list[Shard]] = []
        self._starts: list[int] = []

    def cut(self, split: Container[str], cancelled: Container[str]) -> None:
        """Computes the stacks again. split: keys of jobs that did not fit into memory. cancelled: keys of shards."""
        self._batches, self._starts = [], []
        for start in range(0, len(self._shards), self._at_once):
            first = start
            for part in _halved(self._shards[start : start + self._at_once], split):
                if left := [shard for shard in part if shard.key not in cancelled]:
                    self._batches.append(left)
                    self._starts.append(first)
                first += len(part)

    def starting_at(self, place: int) -> Iterator[Sequence[Shard]]:
        """Yields the stacks in order, starting with the stack that contains shard number `place`."""
        first = bisect.bisect_right(self._starts, place) - 1
        yield from self._batches[max(0, first) :]

    def find(self, key: str) -> Sequence[Shard] | None:
        """Returns the stack whose job has this key, or None if no job has this key."""
        return next((batch for batch in self._batches if job_key(batch) == key), None)

    def jobs_with(self, shards: Collection[str]) -> set[str]:
        """Returns the keys of the jobs that train any of these shards."""
        return {job_key(batch) for batch in self._batches if any(shard.key in shards for shard in batch)}


def _halved(batch: Sequence[Shard], split: Container[str]) -> Iterator[Sequence[Shard]]:
    """Yields the stack itself, or its two halves if the stack's job key is in `split`. Halves are split in the same
    way."""
    if len(batch) > 1 and job_key(batch) in split:
        middle = len(batch) // 2
        yield from _halved(batch[:middle], split)
        yield from _halved(batch[middle:], split)
    else:
        yield batch
