"""Divides the shards of a training group into stacks. One job trains all shards of a stack together."""

from __future__ import annotations

import bisect
from collections.abc import Collection, Container, Iterator, Sequence
from typing import final

from orchestrator.base.keys import content_key
from orchestrator.records.planned_group import Shard


def job_key(stack: Sequence[Shard]) -> str:
    """Returns the key of the job that trains these shards. The job of a single shard has the shard's own key."""
    keys = [shard.key for shard in stack]
    return keys[0] if len(keys) == 1 else content_key(keys)


@final
class ShardStacks:
    """The shards of a group, divided into stacks of `at_once` shards.

    The full list of shards is divided, including trained shards. The stacks are therefore the same after a crash.
    Stacks that did not fit into memory are halved, and then cancelled shards are removed.
    """

    def __init__(self, shards: Sequence[Shard], at_once: int) -> None:
        self._shards = shards
        self._at_once = at_once
        self._stacks: list[tuple[str, list[Shard]]] = []
        """The key of each stack's job, and the stack."""
        self._starts: list[int] = []

    def cut(self, split: Container[str], cancelled: Container[str]) -> None:
        """Divides the shards into stacks. split: keys of jobs that did not fit in memory. cancelled: keys of cancelled
        shards."""
        self._stacks, self._starts = [], []
        for start in range(0, len(self._shards), self._at_once):
            first = start
            for part in _halved(self._shards[start : start + self._at_once], split, cancelled):
                if left := _without(cancelled, part):
                    self._stacks.append((job_key(left), left))
                    self._starts.append(first)
                first += len(part)

    def starting_at(self, place: int) -> Iterator[tuple[str, Sequence[Shard]]]:
        """Yields the key of each stack's job, and the stack, in order. Starts with the stack that contains shard number
        `place`."""
        first = bisect.bisect_right(self._starts, place) - 1
        for number in range(max(0, first), len(self._stacks)):  # a slice would copy thousands of stacks
            yield self._stacks[number]

    def find(self, key: str) -> Sequence[Shard] | None:
        """Returns the stack whose job has this key, or None if no job has this key."""
        return next((stack for other, stack in self._stacks if other == key), None)

    def jobs_with(self, shards: Collection[str]) -> set[str]:
        """Returns the keys of the jobs that train any of these shards."""
        return {key for key, stack in self._stacks if any(shard.key in shards for shard in stack)}


def _halved(stack: Sequence[Shard], split: Container[str], cancelled: Container[str]) -> Iterator[Sequence[Shard]]:
    """Yields the stack itself, or its two halves if the stack's job did not fit into memory.

    Halves are split in the same way. The job that did not fit may have had all shards of the stack, or only those that
    are not cancelled. This function therefore looks in `split` for the keys of both jobs.
    """
    if len(stack) > 1 and any(part and job_key(part) in split for part in (stack, _without(cancelled, stack))):
        middle = len(stack) // 2
        yield from _halved(stack[:middle], split, cancelled)
        yield from _halved(stack[middle:], split, cancelled)
    else:
        yield stack


def _without(cancelled: Container[str], stack: Sequence[Shard]) -> list[Shard]:
    """Returns the shards of a stack that are not cancelled."""
    return [shard for shard in stack if shard.key not in cancelled]
