"""A worker owns one device and does the jobs it is given, one at a time."""

from __future__ import annotations

import contextlib
import platform
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import torch

from orchestrator.base.keys import canonical, content_key
from orchestrator.coordination.messages import Job, Outcome, result_of
from orchestrator.coordination.task_checkpoint import StoredCheckpoint
from orchestrator.nns.mask_trainer import MaskTrainer
from orchestrator.records.artifact_store import Artifact, CorruptArtifactError, stores_of
from orchestrator.records.learned_tensors import LEARNED, states_of, task_state
from orchestrator.spec import user_modules
from orchestrator.spec.experiment import Experiment, build_experiment
from orchestrator.sweeps.training_groups import inference_identity, training_id
from supsup_core.datasets import Dataset
from supsup_core.errors import DivergedError, SupSupError
from supsup_core.evaluation.protocol import evaluate
from supsup_core.kernels.matmul import set_algorithms
from supsup_core.methods import SHARED, Dependence, Learned, Learner, Problem
from supsup_core.methods.learners import accuracy
from supsup_core.nets import weights_sha256
from supsup_core.tasks import Task


class Worker:
    """Trains and evaluates. Everything it writes goes to the store; everything it knows can be rebuilt."""

    def __init__(self, settings: dict[str, Any]) -> None:
        """settings: group (Group.to_node), store, data_root (paths; the latter may be None), imports, folder,
        device, threads, deterministic, tf32, number, commit_every (seconds); for NNs also versions (path) and
        state_mb."""
        self._settings = settings
        self._store, self._versions = stores_of(settings)
        self._trainer: MaskTrainer | None = None
        torch.set_num_threads(settings["threads"])
        set_algorithms(settings["deterministic"], settings["tf32"])
        user_modules.load(settings["imports"], Path(settings["folder"]))
        self._problems: dict[str, tuple[Experiment, Problem, Dataset]] = {}
        self._learner: tuple[object, Learner, int] | None = None

    def prepare(self) -> None:
        """Load what the group's shards need, before the first of them is asked for."""
        self._context(self._group_job())

    def _group_job(self) -> Job:
        """What the group trains, as a job names it."""
        group = self._settings["group"]
        return {"experiment": group["experiment"], "seed": group["seed"]}

    def run(self, job: Job) -> Outcome:
        """Do one job. Never raises for the job's own faults: they come back as the outcome."""
        started_ms = time.time_ns() // 1_000_000
        started = time.perf_counter()
        try:
            if job["kind"] in _SEGMENT_JOBS:
                found = self._segment_job(job)
                evicted = self._trainer.take_evicted() if self._trainer else []
                return {"status": "done", "kind": job["kind"], "key": job["key"], "evicted": evicted, **found}
            wanted = [shard["key"] for shard in job["shards"]] if job["kind"] == "train" else [job["key"]]
            with contextlib.ExitStack() as claims:
                if not all(claims.enter_context(self._store.claim(key)) for key in wanted):
                    return {"status": "busy", "key": job["key"]}
                keep = StoredCheckpoint(self._store, job["key"], self._settings["commit_every"])
                found = {key: result_of(self._store.require(key)) for key in wanted if self._store.has(key)}
                if len(found) < len(wanted):
                    artifacts = self._train(job, keep) if job["kind"] == "train" else [self._evaluate(job)]
                    seconds = (keep.seconds_before + time.perf_counter() - started) / len(wanted)
                    made = {"worker": self._settings["number"], "started_ms": started_ms, "seconds": seconds}
                    made["resumed_at"] = keep.resumed_at
                    found = {artifact.key: result_of(artifact, made) for artifact in artifacts} | found
                keep.clear()
                return {"status": "done", "key": job["key"], "results": list(found.values())}
        except CorruptArtifactError as error:
            return {"status": "corrupt", "key": job["key"], "artifact": error.key, "reason": str(error)}
        except Exception as error:  # noqa: BLE001 - a user's code may raise anything; the ledger keeps it
            found = failure(job, error)
        if found["out_of_memory"] and torch.cuda.is_available():
            torch.cuda.empty_cache()  # only now: until then the traceback holds what was allocated
        return found

    def _segment_job(self, job: Job) -> dict[str, Any]:
        """A part of a round of NNs. What comes back depends on the job alone, but for the seconds it took."""
        if self._trainer is None:
            limit = self._settings["state_mb"] * 1_000_000
            self._trainer = MaskTrainer(*self._context(self._group_job()), self._versions, limit)
        started = time.perf_counter()
        match job["kind"]:
            case "decide":
                mean = torch.from_numpy(np.array(job["superposition"]))
                vector = self._trainer.steepness(mean, job["task"], job["segment"])
                return {"vector": vector.numpy(), "seconds": time.perf_counter() - started}
            case "advance":
                blob, loss, seconds = self._trainer.advance(job["version"])
                return {"mask": blob.numpy().tobytes(), "loss": loss, "seconds": seconds}
            case _:
                written = [self._trainer.save(version) for version in job["versions"]]
                return {"num_bytes": sum(written), "seconds": time.perf_counter() - started}

    def _context(self, job: Job) -> tuple[Experiment, Problem, Dataset]:
        name = canonical([job["experiment"], job["seed"]])
        if name not in self._problems:
            experiment = build_experiment(job["experiment"], job["seed"])
            self._check_source(experiment, job)
            source = experiment.benchmark.source()
            root = self._settings["data_root"]
            same = next(
                (data for other, _, data in self._problems.values() if other.benchmark.source() == source), None
            )
            dataset = same or source.load(Path(root) if root else None)
            self._problems[name] = (experiment, experiment.problem(self._settings["device"]), dataset)
        return self._problems[name]

    def _check_source(self, experiment: Experiment, job: Job) -> None:
        """SupSupError when the user's modules are not, here, what the keys were made from."""
        same = training_id(experiment) == self._settings["group"]["group_id"]
        if "inference_id" in job:
            same = same and content_key(inference_identity(experiment)) == job["inference_id"]
        if not same:
            raise SupSupError("the source of your modules has changed since the sweep started; start it again")

    def _train(self, job: Job, keep: StoredCheckpoint) -> list[Artifact]:
        experiment, problem, dataset = self._context(job)
        shards = job["shards"]
        numbers = [shard["task"] for shard in shards]
        tasks = [experiment.benchmark.task(number, dataset, experiment.seed) for number in numbers]
        if len(shards) > 1:
            learned = experiment.method.learn_together(problem, numbers, tasks, keep)
        else:
            parents = [task_state(self._store, key) for key in shards[0]["parents"]]
            learned = [experiment.method.learn(problem, numbers[0], tasks[0], parents, keep)]
        whole = zip([shard["key"] for shard in shards], numbers, tasks, learned, strict=True)
        return [self._put(job, key, number, task, its) for key, number, task, its in whole]

    def _put(self, job: Job, key: str, number: int, task: Task, learned: Learned) -> Artifact:
        """Store one task as it was learned."""
        experiment, problem, _ = self._context(job)
        own_accuracy = None
        if experiment.method.dependence is Dependence.INDEPENDENT:
            own_accuracy = accuracy(experiment.method.learner(problem, [learned.state]), task, 0)
        shared = sum(tensor.nbytes for name, tensor in learned.state.items() if name.startswith(SHARED))
        facts = {
            "kind": "trained",
            "task": number,
            "accuracy": own_accuracy,
            "curve": [learned.curve.batches, learned.curve.losses],
            "num_images": experiment.training.num_batches * experiment.training.batch_size,
            "num_bytes": sum(tensor.nbytes for tensor in learned.state.values()) - shared,
            "shared_bytes": shared,
            "weights_sha256": weights_sha256(problem.weights),
            "device": self._settings["device"],
            "threads": self._settings["threads"],
            "tf32": self._settings["tf32"],
            "tasks_at_once": len(job["shards"]),
            "torch": str(torch.__version__),  # which is of a class of torch's: whoever reads it would load torch
            "python": platform.python_version(),
        }
        tensors = {f"{LEARNED}{name}": tensor.cpu() for name, tensor in learned.state.items()}
        return self._store.put(key, tensors, facts)

    def _evaluate(self, job: Job) -> Artifact:
        experiment, problem, dataset = self._context(job)
        learner, state_bytes = self._learner_of(job, experiment, problem)
        task = experiment.benchmark.task(job["task"], dataset, experiment.seed)
        found = evaluate(learner, task, job["task"], experiment.scenario, experiment.inference, experiment.seed)
        facts = {
            "kind": "evaluated",
            "task": job["task"],
            "state_bytes": state_bytes,
            "results": {protocol: decisions.summary(job["right"]) for protocol, decisions in found.items()},
        }
        tensors = {
            f"{protocol}.{field}": getattr(decisions, field).to(torch.int32)
            for protocol, decisions in found.items()
            for field in ("chosen", "sizes", "correct", "trace")
            if getattr(decisions, field) is not None
        }
        return self._store.put(job["key"], tensors, facts)

    def _learner_of(self, job: Job, experiment: Experiment, problem: Problem) -> tuple[Learner, int]:
        """What answers with a job's masks, and the bytes of what is stored of them."""
        shards = self._settings["group"]["shards"]
        keys = job["masks"] if "masks" in job else [shard["key"] for shard in shards[: job["num_learned"]]]
        name = (tuple(keys), problem.net)
        if self._learner is None or self._learner[0] != name:
            self._learner = None  # two at once would be twice the memory
            store = self._versions if experiment.allocation is not None else self._store
            states = states_of(keys, store, are_masks=experiment.allocation is not None)
            num_bytes = sum(tensor.nbytes for state in states for tensor in state.values())
            self._learner = (name, experiment.method.learner(problem, states), num_bytes)
        return self._learner[1:]


_SEGMENT_JOBS = ("decide", "advance", "save")
"""The kinds of job that the rounds of NNs are made of."""


def failure(job: Job, error: Exception) -> Outcome:
    """A job that failed by an exception, which is being handled."""
    return {
        "status": "failed",
        "key": job["key"],
        "error": f"{type(error).__name__}: {error}",
        "traceback": traceback.format_exc(),
        "diverged": isinstance(error, DivergedError),
        "out_of_memory": isinstance(error, (MemoryError, torch.OutOfMemoryError)),
    }
