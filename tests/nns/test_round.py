"""A round: the decisions of all streams together, then the training of the chosen masks."""

from __future__ import annotations

import numpy as np
import pytest

from orchestrator.base.failpoints import set_failpoint
from orchestrator.coordination.messages import AdvancedMask, AdvanceJob, DecideJob, DecisionVector
from orchestrator.nns.mask_versions import Lineages
from orchestrator.nns.round import Round, RoundJob, decision_of
from orchestrator.records.rows import SegmentDecided
from supsup_core.masks import codec
from supsup_core.nets import Layer
from supsup_core.nns.allocation_tests import ALLOCATION_TESTS
from supsup_core.nns.allocator import Allocator
from supsup_core.nns.streams import Segment

SIZE = 400
SEGMENTS = [(0, Segment(0, 0)), (1, Segment(1, 0))]


def bits_of(number: int) -> codec.Bits:
    return codec.pack(np.random.default_rng(number).random(SIZE) < 0.5)


def blob_of(number: int) -> bytes:
    return codec.encode(bits_of(number), SIZE, [SIZE])


def make_allocator() -> Allocator:
    return Allocator([Layer("only", (10, 40), 40)], ALLOCATION_TESTS["ratio"](epsilon=0.5), "reuse", 2, bits_of)


def advanced(number: int) -> AdvancedMask:
    return AdvancedMask(blob_of(number), loss=0.5, seconds=0.25)


@pytest.fixture
def allocator() -> Allocator:
    return make_allocator()


@pytest.fixture
def lineages() -> Lineages:
    return Lineages("identity", segment_batches=20)


def first_round(allocator: Allocator, lineages: Lineages) -> Round:
    """Returns the first round of two streams, after its decisions and training."""
    made = Round(0, SEGMENTS, allocator, lineages)
    for entry in list(made.decided):
        assert entry.key is not None
        assert entry.decision.mask is not None
        made.add_mask(entry.key, advanced(100 + entry.decision.mask))
    allocator.end_round()
    return made


def jobs_of(made: Round) -> list[RoundJob]:
    return list(made.jobs(set()))


def test_the_first_round_is_decided_without_vectors(allocator: Allocator, lineages: Lineages) -> None:
    made = Round(0, SEGMENTS, allocator, lineages)
    assert [(entry.decision.outcome, entry.decision.mask) for entry in made.decided] == [
        ("allocate", 0),
        ("allocate", 1),
    ]
    jobs = jobs_of(made)
    assert [(job.job.key, job.stream, job.mask) for job in jobs] == [
        (lineages.latest(0), 0, 0),
        (lineages.latest(1), 1, 1),
    ]
    assert not made.over


def test_a_round_ends_once_all_masks_are_trained(allocator: Allocator, lineages: Lineages) -> None:
    made = Round(0, SEGMENTS, allocator, lineages)
    assert made.masks_in_training() == {0, 1}
    assert made.waits_for(lineages.latest(1))
    assert made.add_mask(lineages.latest(1), advanced(1)) == 1
    assert made.add_mask(lineages.latest(1), advanced(1)) is None  # a duplicate reply
    assert made.add_mask("other", advanced(1)) is None
    assert not made.over
    assert made.add_mask(lineages.latest(0), advanced(0)) == 0
    assert made.over
    assert jobs_of(made) == []


def test_no_decision_is_made_before_all_vectors_have_arrived(allocator: Allocator, lineages: Lineages) -> None:
    first_round(allocator, lineages)
    made = Round(1, [(0, Segment(0, 1)), (1, Segment(1, 1))], allocator, lineages)
    jobs = jobs_of(made)
    assert all(isinstance(job.job, DecideJob) and job.mask is None for job in jobs)
    vectors = [DecisionVector(codec.unpack(bits_of(100 + n)[None], SIZE)[0].astype(np.float32), 0.5) for n in (0, 1)]
    assert not made.add_vector(jobs[1].job.key, vectors[1])
    assert not made.add_vector("other", vectors[0])
    assert not made.decided
    assert [job.stream for job in jobs_of(made)] == [0]
    assert made.add_vector(jobs[0].job.key, vectors[0])
    assert len(made.decided) == 2
    assert made.latency >= 0.5
    assert not made.add_vector(jobs[0].job.key, vectors[0])  # a duplicate reply


def test_two_streams_that_choose_one_mask_train_it_one_after_the_other(lineages: Lineages) -> None:
    allocator = Allocator([Layer("only", (10, 40), 40)], ALLOCATION_TESTS["ratio"](epsilon=0.5), "reuse", 1, bits_of)
    made = Round(0, SEGMENTS[:1], allocator, lineages)
    made.add_mask(lineages.latest(0), advanced(0))
    allocator.end_round()
    made = Round(1, [(0, Segment(0, 1)), (1, Segment(1, 0))], allocator, lineages)
    for job in jobs_of(made):
        made.add_vector(job.job.key, DecisionVector(np.ones(SIZE, np.float32), 0.0))
    first, second = made.decided
    assert first.decision.mask == second.decision.mask == 0
    (job,) = jobs_of(made)
    assert job.job.key == first.key
    assert first.key is not None
    made.add_mask(first.key, advanced(1))
    (job,) = jobs_of(made)
    assert isinstance(job.job, AdvanceJob)
    assert (job.job.key, len(job.job.version.segments)) == (second.key, 3)


def test_the_rows_of_a_round_hold_its_decisions(allocator: Allocator, lineages: Lineages) -> None:
    made = first_round(allocator, lineages)
    entries = list(made.entries(first=6))
    events = [entry.event for entry in entries if isinstance(entry.event, SegmentDecided)]
    assert [(event.ordinal, event.stream, event.task, event.loss) for event in events] == [
        (6, 0, 0, 0.5),
        (7, 1, 1, 0.5),
    ]
    assert [decision_of(event) for event in events] == [entry.decision for entry in made.decided]
    assert all(entry.attachment == b"" for entry in entries)  # no mask existed, so there are no slopes


def test_failpoints_of_a_round_are_reached_in_order(allocator: Allocator, lineages: Lineages) -> None:
    reached: list[object] = []
    for point in ("round_opened", "deciding", "decided"):
        set_failpoint(point, lambda subject, point=point: reached.append((point, subject)))
    made = Round(0, SEGMENTS, allocator, lineages)
    for point in ("round_opened", "deciding", "decided"):
        set_failpoint(point, None)
    assert reached == [("round_opened", 0), ("deciding", 0), ("decided", made)]
