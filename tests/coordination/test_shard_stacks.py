"""Stacks of shards: each shard is in exactly one stack, and a stack that ran out of memory is halved."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.coordination.shard_stacks import ShardStacks, job_key
from orchestrator.records.planned_group import Shard

SHARDS = [Shard(f"{task:08x}", task, ()) for task in range(40)]
COUNTS = st.integers(0, len(SHARDS))


def stacks_of(count: int, at_once: int, split: set[str], cancelled: set[str]) -> list[list[Shard]]:
    made = ShardStacks(SHARDS[:count], at_once)
    made.cut(split, cancelled)
    return [list(stack) for _, stack in made.starting_at(0)]


@given(COUNTS, st.integers(1, 45), st.sets(COUNTS), st.integers(0, 6))
def test_stacks_partition_the_shards_that_are_not_cancelled(
    count: int, at_once: int, cancelled: set[int], halvings: int
) -> None:
    keys = {SHARDS[task].key for task in cancelled if task < len(SHARDS)}
    split: set[str] = set()
    for _ in range(halvings):  # in each pass, every job runs out of memory
        split |= {job_key(stack) for stack in stacks_of(count, at_once, split, set())}
    found = stacks_of(count, at_once, split, keys)
    assert [shard for stack in found for shard in stack] == [s for s in SHARDS[:count] if s.key not in keys]
    assert all(stack for stack in found)
    assert max(map(len, found), default=1) <= max(1, -(-at_once // 2**halvings))


@given(COUNTS, st.integers(1, 10), st.data())
def test_stacks_from_an_index_on_begin_with_the_stack_that_contains_it(
    count: int, at_once: int, data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, max(0, count - 1)))
    made = ShardStacks(SHARDS[:count], at_once)
    made.cut((), ())
    tail = [stack for _, stack in made.starting_at(place)]
    assert tail == stacks_of(count, at_once, set(), set())[place // at_once :]
    if count:
        assert SHARDS[place] in tail[0]


def test_a_split_stack_is_halved_and_a_half_can_be_halved_again() -> None:
    whole = SHARDS[:5]
    halves = stacks_of(5, 5, {job_key(whole)}, set())
    assert [len(stack) for stack in halves] == [2, 3]
    quarters = stacks_of(5, 5, {job_key(whole), job_key(halves[1])}, set())
    assert [len(stack) for stack in quarters] == [2, 1, 2]


def test_a_stack_without_its_cancelled_shards_is_halved_if_it_runs_out_of_memory() -> None:
    cancelled = {SHARDS[1].key}
    (left,) = stacks_of(4, 4, set(), cancelled)
    assert stacks_of(4, 4, {job_key(left)}, cancelled) == [SHARDS[:1], SHARDS[2:4]]


def test_splitting_one_stack_does_not_change_the_others() -> None:
    """A task that is trained again is trained together with the same tasks as before, so it gets the same bits."""
    first, second = stacks_of(4, 2, set(), set())
    assert stacks_of(4, 2, {job_key(second)}, set())[0] == first


def test_jobs_are_found_by_their_keys_and_by_their_shards() -> None:
    made = ShardStacks(SHARDS[:5], 2)
    made.cut((), ())
    assert made.find(job_key(SHARDS[2:4])) == SHARDS[2:4]
    assert made.find(SHARDS[4].key) == SHARDS[4:5]
    assert made.find(SHARDS[0].key) is None
    assert made.jobs_with({SHARDS[1].key, SHARDS[4].key}) == {job_key(SHARDS[0:2]), SHARDS[4].key}
