"""Content keys of mask versions, and the segments from which a version is trained."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.nns.mask_versions import Lineage, Lineages, evaluation_due
from orchestrator.records.rows import EvaluationDue
from supsup_core.nns.streams import Segment

SEGMENTS = st.lists(st.builds(Segment, st.integers(0, 5), st.integers(0, 5)), max_size=8)


def lineages() -> Lineages:
    return Lineages("identity", segment_batches=20)


@given(SEGMENTS, st.data())
def test_a_version_is_trained_from_the_latest_stored_version(segments: list[Segment], data: st.DataObject) -> None:
    """For any set of stored versions, the base version plus the remaining segments give the version's key."""
    lineage = lineages()[3]
    for segment in segments:
        lineage.extend(segment)
    length = data.draw(st.integers(0, len(segments)))
    stored = data.draw(st.sets(st.sampled_from(lineage.keys)))
    version = lineage.version(stored, length)
    assert (version.mask, version.key) == (3, lineage.keys[length])
    done = [place for place in range(1, length + 1) if lineage.keys[place] in stored]
    start = max(done, default=0)
    assert version.base == (lineage.keys[start] if start else None)
    assert [Segment(*segment) for segment in version.segments] == segments[start:length]
    assert list(version.keys) == lineage.keys[start + 1 : length + 1]


@given(SEGMENTS, SEGMENTS)
def test_keys_are_equal_if_and_only_if_the_histories_are_equal(first: list[Segment], second: list[Segment]) -> None:
    keys = []
    for segments in (first, second):
        lineage = lineages()[0]
        for segment in segments:
            lineage.extend(segment)
        keys.append(lineage.keys[-1])
    assert (keys[0] == keys[1]) is (first == second)


def test_keys_depend_on_the_mask_the_training_and_the_length_of_segments() -> None:
    found = {
        Lineages(identity, batches).extend(number, Segment(0, 0))
        for identity in ("identity", "other")
        for batches in (20, 40)
        for number in (0, 1)
    }
    assert len(found) == 8


def test_extending_a_branch_does_not_change_its_lineage() -> None:
    lineage = lineages()[0]
    lineage.extend(Segment(0, 0))
    branch = lineage.branch()
    assert branch.extend(Segment(1, 0)) != lineage.extend(Segment(0, 1))
    assert (len(branch.segments), len(lineage.segments)) == (2, 2)
    assert branch.keys[:2] == lineage.keys[:2]


def test_versions_are_found_by_their_keys() -> None:
    known = lineages()
    first, second = known.extend(2, Segment(0, 0)), known.extend(2, Segment(0, 1))
    assert known.latest(2) == second
    assert known.knows(first)
    assert not known.knows(known[5].keys[0])  # an untrained mask has no stored version
    assert known.find(second, {first}).base == first
    assert known.find(first, {second}).segments == ((0, 0),)
    with pytest.raises(KeyError):
        known.find("other", set())


def test_a_lineage_that_was_not_extended_is_a_fresh_mask() -> None:
    fresh: Lineage = lineages()[4]
    assert fresh.version(set()).segments == ()
    assert fresh.version(fresh.keys).base is None


def test_a_due_evaluation_lists_the_masks_in_order_and_the_masks_of_each_task() -> None:
    due = evaluation_due(2, [0, 1, 4], current={7: "g", 0: "a", 3: "d"}, owners={0: 1, 3: 0, 7: 1})
    assert due == EvaluationDue(2, (0, 1, 4), (0, 3, 7), ("a", "d", "g"), ((1,), (0, 2), ()))
