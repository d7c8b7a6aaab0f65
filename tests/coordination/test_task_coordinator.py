"""Driving a group: whatever happens on the way, the end is the same, and nothing is done twice."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.base.environment import describe
from orchestrator.coordination import task_checkpoint
from orchestrator.coordination.control_files import Asked
from orchestrator.coordination.coordinator import MAX_RETRIES
from orchestrator.coordination.messages import Job, Outcome
from orchestrator.coordination.task_checkpoint import StoredCheckpoint
from orchestrator.execution.drive import drive, open_coordinator
from orchestrator.execution.launch import settings_of
from orchestrator.execution.worker import Worker
from orchestrator.records.artifact_store import ArtifactStore
from orchestrator.records.group_state import GroupState
from orchestrator.records.ledger import LedgerWriter
from orchestrator.sweeps.lookup import open_sweep
from supsup_core.methods import Problem
from supsup_core.methods.supsup import SupSup
from tests.scripted import ScriptedPool, needs_torch, run, state_of

Group = tuple[dict[str, Any], list[str]]


@pytest.fixture
def group(sweep_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """Settings of a group of three short tasks and four evaluations."""
    monkeypatch.chdir(tmp_path)
    sweep = open_sweep(sweep_file(training={"num_batches": 5}), [])
    (planned,) = sweep.plan()
    return settings_of(sweep, planned, describe(tmp_path), 2)


def science(state: GroupState) -> Any:
    """What must not depend on what happened on the way."""
    return (
        {key: (row.payload["facts"], row.payload["sha256"]) for key, row in state.trained.items()},
        {key: (row.payload["facts"], row.payload["sha256"]) for key, row in state.evaluated.items()},
        {point: row.payload["metrics"] for point, row in state.points.items()},
        state.status,
    )


def done(pool: ScriptedPool) -> list[tuple[str, str]]:
    return [(job["kind"], job["key"]) for job in pool.done]


def test_everything_is_done_once(group: dict[str, Any]) -> None:
    pool = run(group, [])
    assert Counter(kind for kind, _ in done(pool)) == {"train": 3, "evaluate": 4}
    assert max(Counter(done(pool)).values()) == 1
    state = state_of(group)
    assert state.status == "done"
    (run_id,) = {run_id for run_id, _ in state.points}
    metrics = state.points[(run_id, 3)].payload["metrics"]
    assert 0 <= metrics["accuracy"] <= metrics["accuracy_labels_shared"] <= 1
    assert metrics["num_bytes"] == 3 * (24 + (64 * 300 + 300 * 100 + 100 * 30) // 8)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.sampled_from([None, None, "lost", "lost after", "kill", "kill after"]), max_size=14),
    st.integers(1, 3),
)
def test_whatever_happens_the_end_is_the_same(
    group: dict[str, Any], tmp_path_factory: pytest.TempPathFactory, script: list[str | None], at_once: int
) -> None:
    group = {**group, "tasks_at_once": at_once}
    reference = tmp_path_factory.mktemp("reference")
    wanted = {**group, "ledger": str(reference / "ledger.sqlite"), "store": str(reference / "store")}
    run(wanted, [])
    folder = tmp_path_factory.mktemp("tried")
    tried = {**group, "ledger": str(folder / "ledger.sqlite"), "store": str(folder / "store")}
    while script:
        ends = [script.index(fault) for fault in ("kill", "kill after") if fault in script]
        cut = min(ends, default=len(script) - 1) + 1
        run(tried, script[:cut])
        script = script[cut:]
    run(tried, [])
    assert science(state_of(tried)) == science(state_of(wanted))


def test_a_task_that_takes_long_goes_on_inside_it(
    group: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything dies while a state is being saved; of the states before, the newest is damaged."""
    run({**group, "ledger": str(tmp_path / "wanted.sqlite"), "store": str(tmp_path / "wanted")}, [])
    often = {**group, "commit_every": 0.0}
    monkeypatch.setattr(task_checkpoint, "_COST_SHARE", 0)
    with monkeypatch.context() as patch:
        save = StoredCheckpoint.save

        def save_or_die(self: StoredCheckpoint, done: int, state: Any) -> None:
            if done == 4:
                raise KeyboardInterrupt
            save(self, done, state)

        patch.setattr(StoredCheckpoint, "save", save_or_die)
        run(often, [])
    states = sorted(Path(group["store"]).glob("unfinished/??/*.safetensors"))
    assert [path.stem.rpartition("-")[2].lstrip("0") for path in states] == ["2", "3"]
    states[1].write_bytes(states[1].read_bytes()[:-1] + b"?")
    run(often, [])
    state = state_of(group)
    assert [row.payload["resumed_at"] for row in state.trained.values()] == [2, 0, 0]
    assert science(state) == science(state_of({**group, "ledger": str(tmp_path / "wanted.sqlite")}))
    assert not list(Path(group["store"]).glob("unfinished/??/*"))


def test_tf32_and_deterministic_algorithms_are_asked_for(group: dict[str, Any]) -> None:
    precise = torch.backends.cuda.matmul, torch.backends.cudnn
    for asked in (True, False):  # last: as it is without being asked
        Worker({**group, "number": 0, **({"deterministic": True, "tf32": True} if asked else {})})
        assert [part.allow_tf32 for part in precise] == [asked, asked]
        assert torch.are_deterministic_algorithms_enabled() == asked


def test_tasks_that_do_not_fit_into_memory_together_are_trained_in_halves(
    group: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = {**group, "ledger": str(tmp_path / "whole.sqlite"), "store": str(tmp_path / "whole")}
    run(whole, [])
    together = SupSup.learn_together

    def tight(self: SupSup, problem: Problem, numbers: Sequence[int], *rest: Any) -> Any:
        if len(numbers) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return together(self, problem, numbers, *rest)

    monkeypatch.setattr(SupSup, "learn_together", tight)
    group = {**group, "tasks_at_once": 3}
    run(group, [None, "kill"])
    assert len(state_of(group).split) == 1
    pool = run(group, [])
    state = state_of(group)
    assert [len(job["shards"]) for job in pool.done if job["kind"] == "train"] == [1, 1, 1]
    assert len(state.split) == 2
    assert (state.status, state.retried, state.failed) == ("done", {}, {})
    assert state.trained.keys() == state_of(whole).trained.keys()


def test_a_task_that_alone_does_not_fit_into_memory_fails_in_words(
    group: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> Any:
        raise MemoryError("nothing left")

    monkeypatch.setattr(SupSup, "learn", full)
    run(group, [])
    state = state_of(group)
    assert state.status == "failed"
    assert {row.payload["error"] for row in state.failed.values()} == {"MemoryError: nothing left"}


def test_workers_that_go_with_their_nodes_are_not_held_against_the_job(group: dict[str, Any]) -> None:
    coordinator = open_coordinator(group)
    (job,) = coordinator.next_jobs([0], [])
    for _ in range(2 * MAX_RETRIES):
        coordinator.report({"status": "lost", "key": job["key"], "reason": "its node has died", "node_lost": True})
    assert not coordinator.finished()
    for _ in range(MAX_RETRIES + 1):
        assert not coordinator.finished()
        coordinator.report({"status": "lost", "key": job["key"], "reason": "killed"})
    assert coordinator.finished()
    coordinator.close()


def test_tasks_at_once_are_one_job_and_a_lost_one_is_made_again_with_the_same_others(group: dict[str, Any]) -> None:
    group = {**group, "tasks_at_once": 2}
    pool = run(group, [])
    jobs = [[shard["task"] for shard in job["shards"]] for job in pool.done if job["kind"] == "train"]
    assert sorted(jobs) == [[0, 1], [2]]
    state = state_of(group)
    wanted = science(state)
    assert [row.payload["facts"]["tasks_at_once"] for row in state.trained.values()].count(2) == 2
    key = group["group"]["shards"][1]["key"]
    path = ArtifactStore(Path(group["store"])).path(key)
    good = path.read_bytes()
    path.unlink()
    again = run(group, [])
    assert [[shard["task"] for shard in job["shards"]] for job in again.done] == [[0, 1]]
    assert path.read_bytes() == good
    assert science(state_of(group)) == wanted
    broken = {**group, "ledger": group["ledger"] + ".broken", "store": group["store"] + ".broken"}
    broken["group"] = {**group["group"], "group_id": "000000000000"}
    run(broken, [])
    assert {row.payload["what"] for row in state_of(broken).failed.values()} <= {"tasks 0 to 1", "task 2"}


def test_a_new_coordinator_trains_nothing_that_is_done(group: dict[str, Any]) -> None:
    first = run(group, [None, None, "kill"])
    second = run(group, [])
    assert not set(done(first)) & set(done(second))
    assert len(first.done) + len(second.done) == 7
    assert run(group, []).done == []


def test_a_lost_ledger_is_rebuilt_from_the_store(group: dict[str, Any]) -> None:
    run(group, [])
    wanted = science(state_of(group))
    ledger = Path(group["ledger"])
    for path in ledger.parent.glob("ledger.sqlite*"):
        path.unlink()
    ledger.write_bytes(b"SQLite format 3\x00" + b"\xff" * 500)
    pool = run(group, [])
    state = state_of(group)
    assert pool.done == []
    assert science(state) == wanted
    assert "set aside" in state.lost[0].payload["reason"]
    assert Path(state.lost[0].payload["file"]).exists()


def test_one_flipped_byte_makes_that_shard_alone_be_trained_again(group: dict[str, Any]) -> None:
    run(group, [])
    wanted = science(state_of(group))
    key = group["group"]["shards"][1]["key"]
    path = ArtifactStore(Path(group["store"])).path(key)
    good = path.read_bytes()
    path.write_bytes(good[:-3] + bytes([good[-3] ^ 4]) + good[-2:])
    pool = run(group, [])
    assert done(pool) == [("train", key)]
    assert path.read_bytes() == good
    state = state_of(group)
    assert science(state) == wanted
    (lost,) = state.lost
    assert lost.payload["task"] == 1
    assert Path(lost.payload["file"]).read_bytes() != good
    assert key in lost.payload["reason"]


def test_an_artifact_that_goes_bad_under_a_running_evaluation_is_made_again(group: dict[str, Any]) -> None:
    class Spoiler(ScriptedPool):
        spoilt = False

        def submit(self, worker: int, job: Job) -> None:
            if job["kind"] == "evaluate" and not self.spoilt:
                ArtifactStore(Path(group["store"])).path(group["group"]["shards"][0]["key"]).write_bytes(b"spoilt")
                self.spoilt = True
            super().submit(worker, job)

    pool = Spoiler(group, iter([]))
    assert drive(open_coordinator(group), pool, lambda progress: None) == "done"
    trained = [key for kind, key in done(pool) if kind == "train"]
    assert len(trained) == 4
    assert len(set(trained)) == 3


def test_a_worker_that_dies_at_the_same_job_again_and_again_fails_it(group: dict[str, Any]) -> None:
    pool = ScriptedPool(group, iter(["lost"] * 100))
    assert drive(open_coordinator(group), pool, lambda progress: None) == "failed"
    (failure, *_) = state_of(group).failed.values()
    assert f"died {MAX_RETRIES + 1} times" in failure.payload["error"]
    assert run(group, []).done
    assert state_of(group).status == "done"


@pytest.mark.parametrize(
    ("opened", "spared"),
    [
        (
            "from orchestrator.execution import drive; drive.open_coordinator(settings).next_jobs([0, 1], [])",
            "torch",
        ),
        (
            "from orchestrator.execution.worker import Worker; Worker(settings | {'number': 0}).prepare()",
            "torch._dynamo",
        ),
    ],
)
def test_a_process_loads_only_what_it_needs(group: dict[str, Any], opened: str, spared: str) -> None:
    program = f"import json, sys; settings = json.load(sys.stdin); {opened}; print({spared!r} in sys.modules)"
    told = subprocess.run(
        [sys.executable, "-c", program], input=json.dumps(group), capture_output=True, text=True, check=False
    )
    assert told.stdout == "False\n", told.stderr


@pytest.mark.parametrize(
    ("transfer", "num_workers", "order"),
    [
        ("none", 1, ["train", "evaluate", "train", "train"]),
        ("masks", 1, ["train", "evaluate", "train", "train"]),
        ("masks", 2, ["train", "train", "train", "evaluate"]),
    ],
)
def test_a_curve_grows_with_the_run_unless_it_would_keep_the_next_task_waiting(
    sweep_file: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    transfer: str,
    num_workers: int,
    order: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    method = {"name": "supsup", "transfer": transfer}
    sweep = open_sweep(sweep_file(training={"num_batches": 5}, method=method, evaluation={"at": [1, 3]}), [])
    (planned,) = sweep.plan()
    pool = run(settings_of(sweep, planned, describe(tmp_path), num_workers), [])
    assert [kind for kind, _ in done(pool)] == [*order, *["evaluate"] * 3]


def test_what_a_worker_answers_is_read_without_torch(group: dict[str, Any]) -> None:
    outcomes = run(group, []).outcomes
    assert {result["facts"]["kind"] for told in outcomes for result in told["results"]} == {"trained", "evaluated"}
    assert not needs_torch(outcomes)


@pytest.mark.parametrize("at_once", [1, 3])
def test_a_task_cancelled_in_its_training_is_left_out_and_can_be_taken_up(group: dict[str, Any], at_once: int) -> None:
    group["tasks_at_once"] = at_once
    wanted: set[int] = set()

    class Patient(ScriptedPool):
        """Task 1 is cancelled while it is being trained; its worker can be killed."""

        abandoned: int | None = None

        def submit(self, worker: int, job: Job) -> None:
            super().submit(worker, job)
            if any(shard["task"] == 1 for shard in job.get("shards", ())):
                wanted.add(1)

        def abandon(self, worker: int) -> None:
            assert any(shard["task"] == 1 for shard in self._jobs[worker]["shards"])
            self.abandoned = worker

        def wait(self, timeout: float) -> list[tuple[int, Outcome]]:
            if wanted and self.abandoned is None:
                return []
            if self.abandoned in self._jobs:
                worker, self.abandoned = self.abandoned, -1
                return [(worker, {"status": "lost", "key": self._jobs.pop(worker)["key"], "reason": "killed"})]
            return super().wait(timeout)

    status = drive(
        open_coordinator(group), Patient(group, iter([])), lambda progress: None, Asked(cancel=lambda: wanted)
    )
    state = state_of(group)
    assert status == state.status == "stopped"
    assert state.given_up
    assert sorted(row.payload["facts"]["task"] for row in state.trained.values()) == [0, 2]
    assert [n for _, n in state.points] == [1]
    assert not state.retried
    assert run(group, []).done == []  # a resume leaves it alone
    writer = LedgerWriter(Path(group["ledger"]))
    writer.append("retry", tasks=[2])
    assert state_of(group).cancelled
    writer.append("retry", tasks=[1])
    writer.close()
    assert [job["kind"] for job in run(group, []).done] == ["train", "evaluate", "evaluate", "evaluate"]
    undisturbed = {**group, "ledger": group["ledger"] + "2", "store": group["store"] + "2"}
    run(undisturbed, [])
    assert state_of(group).points.keys() == state_of(undisturbed).points.keys()
    if at_once == 1:  # others were trained in another company, which is kept with what they gave
        assert science(state_of(group)) == science(state_of(undisturbed))


def test_a_coordinator_that_was_replaced_abandons_the_same_job(group: dict[str, Any]) -> None:
    first = open_coordinator(group)
    jobs = first.cancel([1])
    first.close()
    assert jobs == [group["group"]["shards"][1]["key"]]
    second = open_coordinator(group)
    assert second.cancel([1]) == jobs
    second.report({"status": "failed", "key": jobs[0], "error": "killed in the middle", "traceback": ""})
    second.close()
    state = state_of(group)
    assert not state.failed
    assert list(state.cancelled) == jobs


def test_an_error_in_the_users_code_fails_the_group_with_its_traceback(
    group: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: object, *arguments: object) -> None:
        raise ZeroDivisionError("in the user's method")

    with monkeypatch.context() as patched:
        patched.setattr("supsup_core.methods.supsup.SupSup.learn", broken)
        assert drive(open_coordinator(group), ScriptedPool(group, iter([])), lambda progress: None) == "failed"
    (failure, *_) = state_of(group).failed.values()
    assert "ZeroDivisionError" in failure.payload["error"]
    assert "in the user's method" in failure.payload["traceback"]
    assert failure.payload["what"].startswith("task ")


def test_a_shard_claimed_by_another_sweep_is_waited_for_and_not_trained_twice(
    group: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.execution.drive.BUSY_SECONDS", 0.05)
    store = ArtifactStore(Path(group["store"]))
    key = group["group"]["shards"][0]["key"]
    claim = store.claim(key)
    assert claim.__enter__()

    class Other(ScriptedPool):
        """After some busy answers the other sweep finishes the shard."""

        busy = 0

        def wait(self, timeout: float) -> list[tuple[int, Outcome]]:
            found = super().wait(timeout)
            self.busy += sum(outcome["status"] == "busy" for _, outcome in found)
            if self.busy == 3:
                self.busy += 1
                claim.__exit__(None, None, None)
                self.foreign = self._workers[0].run(next(job for job in open_coordinator(elsewhere).next_jobs([0], [])))
            return found

    elsewhere = {**group, "ledger": group["ledger"] + ".other"}
    pool = Other(group, iter([]))
    assert drive(open_coordinator(group), pool, lambda progress: None) == "done"
    assert pool.busy >= 3
    row = state_of(group).trained[key]
    assert row.payload["seconds"] is None
    assert row.payload["sha256"] == pool.foreign["results"][0]["sha256"]


def test_weights_are_vouched_for_in_every_artifact(group: dict[str, Any]) -> None:
    run(group, [])
    digests = {row.payload["facts"]["weights_sha256"] for row in state_of(group).trained.values()}
    assert len(digests) == 1
    assert len(digests.pop()) == 64
    assert torch.get_num_threads() == 1


def test_a_worker_whose_source_is_not_the_plans_refuses_the_job(group: dict[str, Any]) -> None:
    """An edit in the middle of a sweep must not put new results under old keys."""
    stale = {**group, "group": {**group["group"], "group_id": "000000000000"}}
    outcome = Worker({**stale, "number": 0}).run(open_coordinator(group).next_jobs([0], [])[0])
    assert outcome["status"] == "failed"
    assert "has changed since the sweep started" in outcome["error"]
    assert not list(Path(group["store"]).glob("??/*.safetensors"))
