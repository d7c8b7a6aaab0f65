"""Sample facts, plans and events for tests of ledgers and artifacts."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.records.facts import EvaluatedFacts, MaskVersionFacts, TrainedFacts, UnfinishedFacts
from orchestrator.records.machine_kind import MachineKind, Machines
from orchestrator.records.planned_group import Evaluation, GroupSize, PlannedGroup, PlannedRun, Shard
from orchestrator.records.rows import (
    ArtifactLost,
    EvaluationDue,
    Event,
    GroupPlanned,
    GroupStopped,
    JobFailed,
    JobRetried,
    JobSplit,
    JobStalled,
    LaunchEnded,
    LaunchEnvironment,
    PointCompleted,
    RetryRequested,
    RoundsCommitted,
    RunForked,
    SegmentDecided,
    ShardTrained,
    TaskCancelled,
    TaskEvaluated,
    TasksMet,
)
from supsup_core.evaluation.counts import ProtocolCounts
from supsup_core.kernels.chosen import Kernels

ONE_KIND = MachineKind(
    processor="AMD EPYC (family 26, model 2)", threads=1, torch="2.13.0+cpu", numpy="2.4.6", numba="0.68.1",
    python="3.11.7", kernels=Kernels(
        instructions="AVX512+BF16", matmul="oneDNN", rmsprop="compiled", top_k="compiled",
        mask_products="permutation of 16",
    ),
)  # fmt: skip
OTHER_KIND = replace(
    ONE_KIND, processor="Intel Core i7 (family 6, model 60)",
    kernels=replace(ONE_KIND.kernels, instructions="AVX2", matmul="torch", mask_products="permutation of 8"),
)  # fmt: skip

TRAINED = TrainedFacts(
    task=3, accuracy=0.5, curve=((10, 20), (1.5, 0.25)), num_images=2560, num_bytes=66424, weights_sha256="0" * 64,
    device="cpu", threads=1, torch="2.9.0", python="3.11.7",
)  # fmt: skip
EVALUATED = EvaluatedFacts(
    task=0,
    state_bytes=66424,
    results={
        "paper": ProtocolCounts(100, 90, 85, 10, 9, {"0": 9, "1": 1}),
        "strict": ProtocolCounts(20, 15, 15, 20, 18, {"0": 18, "1": 2}, recovered=3, distances=(2.5, 0.0)),
    },
)
UNFINISHED = UnfinishedFacts(batches=40, seconds=1.5, machines=Machines([ONE_KIND]), weights_sha256="0" * 64)
VERSION = MaskVersionFacts(loss=0.75, machines=Machines([ONE_KIND, OTHER_KIND]), weights_sha256="0" * 64)

ENVIRONMENT = LaunchEnvironment(
    num_workers=2, versions={"torch": "2.9.0"}, python="3.11.7", platform="Linux", processor="x86_64", num_cpus=2
)
SHARDS = (Shard("aa", 0, ()), Shard("bb", 1, ("aa",)))
EVALUATIONS = (Evaluation("ee", 0, 2, 0), Evaluation("ff", 1, 2, 0))
RUN = PlannedRun(
    run_id="r", name="GNu seed=0", label="GNu", varied={"seed": 0}, experiment={"scenario": "GNu"}, inference_id="i",
    points={2: ("ee", "ff")},
)  # fmt: skip
GROUP = PlannedGroup(
    group_id="0123456789ab", seed=0, size=GroupSize(2, 2), num_streams=None, segments_per_task=None,
    experiment={"scenario": "GNu"}, shards=SHARDS, evaluations=EVALUATIONS, runs=(RUN,),
)  # fmt: skip
NNS_GROUP = replace(
    GROUP, size=GroupSize(2, 2), num_streams=1, segments_per_task=2, shards=(), evaluations=(),
    runs=(replace(RUN, points={2: ()}),),
)  # fmt: skip
DECIDED = SegmentDecided(
    round=0, ordinal=0, stream=0, task=0, segment=0, num_masks=0, statistic=0.5, threshold=1.25, best=None, second=None,
    outcome="allocate", mask=0, freed=None, standing_out=(), margin=-0.75, key="ab", loss=0.25, seconds=0.5,
    latency=0.125,
)  # fmt: skip

EVENTS: tuple[Event, ...] = (
    GroupPlanned(GROUP, ENVIRONMENT),
    GroupPlanned(NNS_GROUP, replace(ENVIRONMENT, git_revision="abc")),
    ShardTrained("aa", TRAINED, "1" * 64),
    ShardTrained("bb", replace(TRAINED, accuracy=None), "1" * 64, worker=1, started_ms=5, seconds=0.5, resumed_at=0),
    TaskEvaluated("ee", EVALUATED, "2" * 64, worker=0, started_ms=6, seconds=0.25, resumed_at=0),
    PointCompleted("r", 2, {"accuracy": 0.5, "num_bytes": 10.0}, ("ee", "ff")),
    DECIDED,
    TasksMet(1, {"masks": 1.0}, latency=0.125, seconds=0.5),
    EvaluationDue(2, tasks=(0, 1), numbers=(0, 3), keys=("ab", "cd"), right=((0,), (1,))),
    RunForked("small-123456", "0123456789ab", 2),
    RoundsCommitted(
        2, {0: "ab", 10: "cd"}, num_bytes=10, training_seconds=0.5, seconds=0.25, machines=Machines([ONE_KIND])
    ),
    ArtifactLost("aa", "store/corrupt/aa", "its bytes do not match", 0),
    ArtifactLost("", "ledger.corrupt", "set aside"),
    JobRetried("aa", "killed", free=True),
    JobSplit("aa", "out of memory"),
    JobStalled("aa", "task 0", worker=1, seconds=100.0, usual_seconds=None),
    JobFailed("aa", "task 0", "ZeroDivisionError", "Traceback …"),
    TaskCancelled("aa", 0),
    GroupStopped(1, diverged="DivergedError", reason=None),
    RetryRequested((1, 2)),
    LaunchEnded("done"),
)
"""At least one event of every kind."""
