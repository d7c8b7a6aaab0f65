"""The worker of a training group. A worker has one device and does one job at a time."""

from __future__ import annotations

import contextlib
import platform
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, final

import numpy as np
import torch

from orchestrator.base import failpoints
from orchestrator.base.keys import canonical, content_key
from orchestrator.base.library_internals import lacks_memory
from orchestrator.base.memory_limit import JOB_BYTES, require_memory
from orchestrator.base.plain_values import Node
from orchestrator.coordination.messages import (
    AdvanceJob,
    Busy,
    Corrupt,
    DecideJob,
    Done,
    EvaluateJob,
    Failed,
    Job,
    Product,
    RebuildJob,
    RebuiltMask,
    Reply,
    Result,
    SavedMasks,
    SaveJob,
    TrainJob,
)
from orchestrator.coordination.settings import GroupSettings
from orchestrator.coordination.task_checkpoint import StoredCheckpoint
from orchestrator.coordination.task_coordinator import result_of
from orchestrator.nns.mask_trainer import MaskTrainer
from orchestrator.records.artifact_format import Artifact, CorruptArtifactError
from orchestrator.records.facts import EvaluatedFacts, TrainedFacts
from orchestrator.records.learned_tensors import LEARNED, provenance_here, states_of
from orchestrator.records.machine_kind import Machines, Provenance, joined
from orchestrator.records.planned_group import Shard
from orchestrator.spec import user_modules
from orchestrator.spec.experiment import Experiment, build_experiment
from orchestrator.sweeps.training_groups import inference_identity, training_id
from supsup_core.datasets import Dataset
from supsup_core.errors import DivergedError, InputError, SupSupError
from supsup_core.evaluation.protocol import evaluate
from supsup_core.kernels.matmul import set_algorithms
from supsup_core.methods import SHARED, Dependence, Learned, Learner, Problem
from supsup_core.methods.learners import CanGrow, accuracy
from supsup_core.tasks import Task


class _Context(NamedTuple):
    """An experiment, the experiment's Problem with tensors on the worker's device, and the dataset in memory. `here`:
    the provenance of this process."""

    experiment: Experiment
    problem: Problem
    dataset: Dataset
    here: Provenance


class _CachedLearner(NamedTuple):
    """A learner, the keys of its tasks or masks, and the machines that trained them.

    `own`: for a learner to which no tasks can be added, each task's tensors without the tensors that all tasks share.
    `own_bytes`: the size of the tensors that belong to one task each. `shared_bytes`: the size of the tensors that all
    tasks share.
    """

    keys: tuple[str, ...]
    net: object
    learner: Learner
    own: list[dict[str, torch.Tensor]]
    own_bytes: int
    shared_bytes: int
    machines: Machines


@final
class Worker:
    """Does jobs on one device. Writes only to the artifact stores. All state in memory can be recomputed."""

    def __init__(self, settings: GroupSettings, number: int) -> None:
        """number: the worker's number in its group. Sets torch's threads and algorithms for the whole process. Raises
        InputError if one of the user's modules cannot be imported."""
        self._settings = settings
        self._number = number
        self._store, self._masks = settings.open_store(), settings.open_masks()
        self._trainer: MaskTrainer | None = None
        torch.set_num_threads(settings.threads)
        set_algorithms(settings.deterministic, settings.tf32)
        user_modules.load(settings.imports, settings.imports_folder)
        self._contexts: dict[str, _Context] = {}
        self._learner: _CachedLearner | None = None

    def prepare(self) -> None:
        """Loads the experiment and dataset of the group, so that the first job does not wait for them."""
        self._group_context()

    def run(self, job: Job) -> Reply:
        """Does one job and returns the reply. If the job raises an exception, the reply is Corrupt or Failed."""
        try:
            require_memory(JOB_BYTES)
            failpoints.reach("job_begins", job)
            reply = self._train_or_evaluate(job) if isinstance(job, TrainJob | EvaluateJob) else self._do_segment(job)
            failpoints.reach("job_done", job)
            return reply
        except CorruptArtifactError as error:
            return Corrupt(job.key, error.key, str(error))
        except Exception as error:  # noqa: BLE001 - a user's code may raise anything
            failed = failed_reply(job, error)
        if failed.out_of_memory and torch.cuda.is_available():
            torch.cuda.empty_cache()  # after the except block, in which the traceback keeps the tensors alive
        return failed

    def _do_segment(self, job: DecideJob | AdvanceJob | SaveJob | RebuildJob) -> Done:
        """Does one job of scenario NNs. Decision vectors and masks depend only on the job, not on the worker."""
        if self._trainer is None:
            limit = self._settings.state_mb * 1_000_000
            self._trainer = MaskTrainer(*self._group_context(), self._masks, limit)
        product: Product
        started = time.perf_counter()
        match job:
            case DecideJob():
                mean = torch.from_numpy(np.array(job.superposition))
                product = self._trainer.decision_vector(mean, job.task, job.segment)
            case AdvanceJob():
                product = self._trainer.advance(job.version)
            case SaveJob():
                written = sum(self._trainer.save(version) for version in job.versions)
                product = SavedMasks(written, time.perf_counter() - started)
            case RebuildJob():
                self._trainer.save(job.version)
                product = RebuiltMask(job.version.key)
        return Done(job.key, product, self._trainer.take_evicted(), self._trainer.take_provenance())

    def _train_or_evaluate(self, job: TrainJob | EvaluateJob) -> Done | Busy:
        """Returns a Done reply with the ledger events of the artifacts that the job asks for.

        If any of the artifacts is not in the store, first computes and stores all these artifacts. Returns Busy if
        another process has claimed one of the artifacts. Raises CorruptArtifactError if a stored artifact is corrupt.
        """
        started_ms = time.time_ns() // 1_000_000
        started = time.perf_counter()
        wanted = [shard.key for shard in job.shards] if isinstance(job, TrainJob) else [job.key]
        with contextlib.ExitStack() as claims:
            if not all(claims.enter_context(self._store.claim(key)) for key in wanted):
                return Busy(job.key)
            checkpoint = StoredCheckpoint(self._store, job.key, self._settings.commit_every)
            results = {key: result_of(self._store.require(key)) for key in wanted if self._store.has(key)}
            if len(results) < len(wanted):
                artifacts = self._train(job, checkpoint) if isinstance(job, TrainJob) else [self._evaluate(job)]
                seconds = (checkpoint.seconds_before + time.perf_counter() - started) / len(wanted)
                made = [self._made(artifact, started_ms, seconds, checkpoint.resumed_at) for artifact in artifacts]
                results = {result.key: result for result in made} | results
            checkpoint.clear()
            return Done(job.key, tuple(results.values()))

    def _made(self, artifact: Artifact, started_ms: int, seconds: float, resumed_at: int) -> Result:
        """Returns the ledger event of an artifact that this worker computed, with the times of the computation."""
        return replace(
            result_of(artifact), worker=self._number, started_ms=started_ms, seconds=seconds, resumed_at=resumed_at
        )

    def _group_context(self) -> _Context:
        return self._context(self._settings.group.experiment, self._settings.group.seed)

    def _context(self, node: Node, seed: int, inference_id: str | None = None) -> _Context:
        """Returns the context of an experiment. Loads the context at the first call, and caches it for later calls.

        node: the experiment's config. inference_id: for an evaluation, the content key of the inference settings;
        otherwise None. Raises SupSupError if the source of the user's modules has changed since the sweep started.
        """
        name = canonical([node, seed])
        if name not in self._contexts:
            experiment = build_experiment(node, seed)
            self._check_source(experiment, inference_id)
            source = experiment.benchmark.source()
            loaded = [
                other.dataset for other in self._contexts.values() if other.experiment.benchmark.source() == source
            ]
            dataset = loaded[0] if loaded else source.load(self._settings.data_root)
            problem = experiment.problem(self._settings.device)
            here = provenance_here(problem, self._settings.threads, self._settings.deterministic, self._settings.tf32)
            self._contexts[name] = _Context(experiment, problem, dataset, here)
        return self._contexts[name]

    def _check_source(self, experiment: Experiment, inference_id: str | None) -> None:
        """Raises SupSupError if the source of the user's modules has changed since the content keys were computed."""
        same = training_id(experiment) == self._settings.group.group_id
        if inference_id is not None:
            same = same and content_key(inference_identity(experiment)) == inference_id
        if not same:
            raise SupSupError(
                "imports: the source code of a module has changed since the sweep started; run `supsup resume` to "
                "train the affected tasks again"
            )

    def _train(self, job: TrainJob, checkpoint: StoredCheckpoint) -> list[Artifact]:
        experiment, problem, dataset, here = self._context(job.experiment, job.seed)
        numbers = [shard.task for shard in job.shards]
        tasks = [experiment.benchmark.task(number, dataset, experiment.seed) for number in numbers]
        _check_shape(experiment, tasks[0])
        parents = states_of(job.shards[0].parents, self._store, False, here)
        checkpoint.begin(here.with_machines(parents.machines))
        if len(job.shards) > 1:
            learned = experiment.method.learn_together(problem, numbers, tasks, checkpoint)
        else:
            learned = [experiment.method.learn(problem, numbers[0], tasks[0], parents.states, checkpoint)]
        trained = zip(job.shards, tasks, learned, strict=True)
        return [self._put(job, shard, task, one, checkpoint.provenance) for shard, task, one in trained]

    def _put(self, job: TrainJob, shard: Shard, task: Task, learned: Learned, provenance: Provenance) -> Artifact:
        """Stores one learned task, and returns the artifact."""
        experiment, problem, _, _ = self._context(job.experiment, job.seed)
        own_accuracy = None
        if experiment.method.dependence is Dependence.INDEPENDENT:
            own_accuracy = accuracy(experiment.method.learner(problem, [learned.state]), task, 0)
        own_bytes, shared_bytes = _num_bytes([learned.state])
        facts = TrainedFacts(
            task=shard.task,
            accuracy=own_accuracy,
            curve=(tuple(learned.curve.batches), tuple(learned.curve.losses)),
            num_images=experiment.training.num_batches * experiment.training.batch_size,
            num_bytes=own_bytes,
            shared_bytes=shared_bytes,
            weights_sha256=provenance.weights_sha256,
            device=self._settings.device,
            threads=self._settings.threads,
            tf32=self._settings.tf32,
            tasks_at_once=len(job.shards),
            torch=str(torch.__version__),  # a plain str, because unpickling a TorchVersion loads torch
            python=platform.python_version(),
            machines=provenance.machines,
        )
        tensors = {f"{LEARNED}{name}": tensor.cpu() for name, tensor in learned.state.items()}
        return self._store.put(shard.key, tensors, facts)

    def _evaluate(self, job: EvaluateJob) -> Artifact:
        context = self._context(job.experiment, job.seed, job.inference_id)
        experiment, dataset = context.experiment, context.dataset
        tested = self._tested(job, context)
        task = experiment.benchmark.task(job.task, dataset, experiment.seed)
        found = evaluate(tested.learner, task, job.task, experiment.scenario, experiment.inference, experiment.seed)
        results = {protocol: decisions.counts(job.right) for protocol, decisions in found.items()}
        machines = context.here.with_machines(tested.machines).machines
        facts = EvaluatedFacts(job.task, tested.own_bytes + tested.shared_bytes, results, machines)
        tensors = {
            f"{protocol}.{field}": getattr(decisions, field).to(torch.int32)
            for protocol, decisions in found.items()
            for field in ("chosen", "sizes", "correct", "trace")
            if getattr(decisions, field) is not None
        }
        return self._store.put(job.key, tensors, facts)

    def _tested(self, job: EvaluateJob, context: _Context) -> _CachedLearner:
        """Returns the learner that a job evaluates. Caches one learner, and adds further tasks to it if possible."""
        experiment, problem = context.experiment, context.problem
        keys = tuple(job.masks or (shard.key for shard in self._settings.group.shards[: job.num_learned]))
        cached, self._learner = self._learner, None
        if cached is not None and (cached.net != problem.net or cached.keys != keys[: len(cached.keys)]):
            cached = None  # frees the old learner first, because two learners would need twice the memory
        if cached is None or len(cached.keys) < len(keys):
            are_masks = experiment.allocation is not None
            new = keys[len(cached.keys) :] if cached is not None else keys
            found = states_of(new, self._masks if are_masks else self._store, are_masks, context.here)
            own_bytes, shared_bytes = _num_bytes(found.states)
            machines = found.machines
            before = cached.own if cached is not None else []
            if cached is not None:
                own_bytes += cached.own_bytes
                machines = joined(cached.machines, machines)
            if cached is not None and isinstance(cached.learner, CanGrow):
                learner: Learner = cached.learner
                cached.learner.add(found.states)
            else:
                learner = experiment.method.learner(problem, [*before, *found.states])
            own = [] if isinstance(learner, CanGrow) else [*before, *map(_without_shared, found.states)]
            cached = _CachedLearner(keys, problem.net, learner, own, own_bytes, shared_bytes, machines)
        self._learner = cached
        return cached


def _without_shared(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Returns the tensors of a task without those that all tasks share."""
    return {name: tensor for name, tensor in state.items() if not name.startswith(SHARED)}


def _num_bytes(states: Sequence[Mapping[str, torch.Tensor]]) -> tuple[int, int]:
    """Returns the sizes in bytes of the tensors that belong to one task each, and of the tensors that tasks share."""
    tensors = [(name, tensor) for state in states for name, tensor in state.items()]
    shared = sum(tensor.nbytes for name, tensor in tensors if name.startswith(SHARED))
    return sum(tensor.nbytes for _, tensor in tensors) - shared, shared


def _check_shape(experiment: Experiment, task: Task) -> None:
    """Raises InputError if the shape of a task's images differs from the benchmark's `input_shape`."""
    shape = tuple(task.test_batch(torch.zeros(1, dtype=torch.int64))[0].shape[1:])
    if shape != tuple(experiment.benchmark.input_shape):
        raise InputError(
            f"benchmark: {type(experiment.benchmark).__name__} returns images of shape {shape}, but its input_shape is "
            f"{tuple(experiment.benchmark.input_shape)}; make the two equal"
        )


def failed_reply(job: Job, error: Exception) -> Failed:
    """Returns the reply to a job that raised `error`.

    Call this function inside the except block, because the traceback exists only there.
    """
    return Failed(
        job.key,
        job.kind,
        error=f"{type(error).__name__}: {error}",
        traceback=traceback.format_exc(),
        diverged=isinstance(error, DivergedError),
        out_of_memory=lacks_memory(error),
    )
