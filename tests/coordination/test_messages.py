"""Jobs and replies, which a coordinator and its workers send to each other."""

from __future__ import annotations

import pickle
from typing import get_args

import numpy as np
import pytest

from orchestrator.coordination.messages import (
    AdvancedMask,
    AdvanceJob,
    Busy,
    Corrupt,
    DecideJob,
    DecisionVector,
    Done,
    EvaluateJob,
    Failed,
    Job,
    JobKind,
    Lost,
    MaskVersion,
    Product,
    RebuildJob,
    RebuiltMask,
    Reply,
    SavedMasks,
    SaveJob,
    TrainJob,
)
from orchestrator.records.planned_group import Shard
from orchestrator.records.rows import ShardTrained, TaskEvaluated
from tests.records.samples import EVALUATED, TRAINED
from tests.scripted import needs_torch

VERSION = MaskVersion(mask=1, key="ab", base=None, segments=((0, 0), (0, 1)), keys=("aa", "ab"))
SUPERPOSITION = np.linspace(-1, 1, 5, dtype=np.float32)

JOBS: tuple[Job, ...] = (
    TrainJob("aa", (Shard("aa", 0, ()), Shard("bb", 1, ("aa",))), {"scenario": "GNu"}, seed=3),
    EvaluateJob("ee", 0, 2, (0,), {"scenario": "GNu"}, "i", seed=3),
    EvaluateJob("ff", 1, 2, (1, 2), {"scenario": "NNs"}, "i", seed=3, masks=("ab", "cd")),
    DecideJob("decide-0-0", SUPERPOSITION, task=0, segment=1),
    AdvanceJob("ab", VERSION),
    SaveJob("save-1-ab", (VERSION, VERSION)),
    RebuildJob("rebuild-ab", VERSION),
)
PRODUCTS: tuple[Product, ...] = (
    (ShardTrained("aa", TRAINED, "1", worker=0, started_ms=5, seconds=0.5, resumed_at=0),),
    (TaskEvaluated("ee", EVALUATED, "2"),),
    (),
    DecisionVector(SUPERPOSITION, 0.5),
    AdvancedMask(b"mask", 0.25, 0.5),
    SavedMasks(10, 0.5),
    RebuiltMask("ab"),
)
REPLIES: tuple[Reply, ...] = (
    *(Done("aa", product, evicted=("cd",)) for product in PRODUCTS),
    Busy("aa"),
    Corrupt("aa", "bb", "its bytes do not match"),
    Failed("aa", "train", "ZeroDivisionError", "Traceback …", diverged=True, out_of_memory=True),
    Lost("aa", "train", "killed", node_lost=True, out_of_memory=True),
)


def test_there_is_a_sample_of_every_job_and_reply() -> None:
    assert {type(job) for job in JOBS} == set(get_args(Job))
    assert {job.kind for job in JOBS} == set(get_args(JobKind))
    assert {type(reply) for reply in REPLIES} == set(get_args(Reply))


@pytest.mark.parametrize("message", [*JOBS, *REPLIES], ids=lambda message: type(message).__name__)
def test_a_message_survives_pickling(message: Job | Reply) -> None:
    found = pickle.loads(pickle.dumps(message))
    assert type(found) is type(message)
    if isinstance(message, DecideJob):
        assert np.array_equal(found.superposition, message.superposition)
        assert (found.key, found.task, found.segment) == (message.key, message.task, message.segment)
    elif isinstance(message, Done) and isinstance(message.product, DecisionVector):
        assert type(found.product) is DecisionVector
        assert np.array_equal(found.product.vector, message.product.vector)
    else:
        assert found == message


def test_replies_are_unpickled_without_torch() -> None:
    assert not needs_torch(REPLIES)
