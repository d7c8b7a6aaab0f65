"""Rounds of NNs: whatever happens on the way, the same masks, decisions and results."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.base.environment import describe
from orchestrator.coordination.control_files import Asked
from orchestrator.execution.drive import drive, open_coordinator
from orchestrator.execution.launch import settings_of
from orchestrator.execution.worker import Worker
from orchestrator.nns.mask_trainer import MaskTrainer
from orchestrator.records.artifact_store import ArtifactStore
from orchestrator.sweeps.lookup import open_sweep
from supsup_core.errors import CorruptError
from tests.outputs import nns_science
from tests.scripted import ScriptedPool, needs_torch, run, state_of

NNS: dict[str, Any] = {
    "scenario": "NNs",
    "benchmark": {"name": "permuted", "base": "digits", "num_tasks": 5},
    "training": {"num_batches": 60, "learning_rate": 3e-3},
    "stream": {"segment_batches": 20, "order": "recurring", "visits": 2},
    "evaluation": {"at": [2, 5]},
    "inference": {"strict_images": 10},
    "commit_every": 0.001,
}


SHARED: dict[str, Any] = {
    "stream": {**NNS["stream"], "num_streams": 3},
    "allocation": {"name": "ratio", "epsilon": 50.0},
    "budget": {"num_masks": 3, "on_exhausted": "reuse"},
}
"""Three streams, of which two often choose the same mask in one round."""


@pytest.fixture
def make(sweep_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Any]:
    """Settings of a small NNs group, in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def settings_for(name: str, num_workers: int = 2, **changes: Any) -> dict[str, Any]:
        sweep = open_sweep(sweep_file(f"{name}.yaml", **{**NNS, "output": name, **changes}), [])
        (planned,) = sweep.plan()
        return settings_of(sweep, planned, describe(tmp_path), num_workers)

    return settings_for


def science(settings: dict[str, Any], whole_files: bool = True) -> Any:
    return nns_science(Path(settings["ledger"]), whole_files)


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.sampled_from([None, None, None, "lost", "lost after", "replace", "kill", "kill after"]), max_size=60),
    st.sampled_from([0.001, 60.0]),
    st.booleans(),
)
def test_whatever_happens_the_end_is_the_same(
    make: Callable[..., Any], tmp_path: Path, script: list[str | None], commit_every: float, shared: bool
) -> None:
    changes = SHARED if shared else {}
    wanted = make(f"wanted-{shared}", **changes)
    if not Path(wanted["ledger"]).exists():
        run(wanted, [])
    number = sum(1 for _ in tmp_path.glob("tried*"))
    tried = {**make(f"tried{number}", **changes), "commit_every": commit_every}
    while script:
        ends = [script.index(fault) for fault in ("kill", "kill after") if fault in script]
        cut = min(ends, default=len(script) - 1) + 1
        run(tried, script[:cut])
        script = script[cut:]
    run(tried, [])
    assert science(tried) == science(wanted)


@pytest.mark.parametrize("num_streams", [1, 3])
def test_the_number_of_workers_changes_nothing(make: Callable[..., Any], num_streams: int) -> None:
    stream = {**NNS["stream"], "num_streams": num_streams}
    one, three = make("one", 1, stream=stream), make("three", 3, stream=stream)
    run(one, [])
    run(three, [])
    assert science(one) == science(three)
    assert len(state_of(one).decisions) == 15


SURE: dict[str, Any] = {
    "net": {"name": "lenet_300_100", "num_outputs": 200},
    "training": {"num_batches": 150, "learning_rate": 1e-3},
    "stream": {"segment_batches": 50},
    "commit_every": 60.0,
}
"""A stream in blocks in which nothing is mistaken: five tasks of three segments each."""


def test_idle_workers_train_what_comes_next(make: Callable[..., Any]) -> None:
    """One stream keeps three workers busy, and nothing that they train ahead is trained again."""
    one, three = make("one", 1, **SURE), make("three", 3, **SURE)
    run(one, [])
    pool = run(three, [])
    assert science(one) == science(three)
    trained = [job for job in pool.done if job["kind"] == "advance"]
    assert len(trained) == len({job["key"] for job in trained}) == len(state_of(three).decisions) == 15
    assert {job["worker"] for job in trained} == {0, 1, 2}
    assert all(len(job["version"]["segments"]) == 1 for job in trained if job["version"]["base"] is not None)


def test_what_a_worker_answers_is_read_without_torch(make: Callable[..., Any]) -> None:
    pool = run(make("asked"), [])
    assert {"decide", "advance", "save"} <= {job["kind"] for job in pool.done}
    assert not needs_torch(pool.outcomes)


@pytest.mark.parametrize("on_exhausted", ["reclaim", "skip"])
def test_a_wrong_guess_costs_nothing_but_time(make: Callable[..., Any], on_exhausted: str) -> None:
    """With an epsilon that nothing reaches every segment gets a mask, which nobody guesses, until the budget is out."""
    odd: dict[str, Any] = {
        "allocation": {"name": "ratio", "epsilon": 50.0},
        "budget": {"num_masks": 7, "on_exhausted": on_exhausted},
    }
    one, three = make("one", 1, **odd), make("three", 3, **odd)
    run(one, [])
    pool = run(three, [])
    assert science(one) == science(three)
    wanted = {row.payload["key"] for row in state_of(three).decisions}
    guessed = {job["key"] for job in pool.done if job["kind"] == "advance"}
    assert guessed - wanted  # else this test would show nothing
    files = {path.stem for path in Path(three["versions"]).glob("??/*.safetensors")}
    assert files <= wanted


def test_what_fails_ahead_of_its_time_fails_nothing(make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = make("one", 1, **SURE), make("two", 2, **SURE)
    run(one, [])
    advance = MaskTrainer.advance
    failed: set[str] = set()

    def fail_at_first(trainer: MaskTrainer, version: Any) -> Any:
        if version["mask"] == 2 and version["key"] not in failed and not failed:
            failed.add(version["key"])
            raise RuntimeError("as the test wants it")
        return advance(trainer, version)

    monkeypatch.setattr(MaskTrainer, "advance", fail_at_first)
    pool = run(two, [])
    assert failed
    assert science(one) == science(two)
    assert [job["key"] in failed for job in pool.done].count(True) == 1
    assert not state_of(two).failed


@pytest.mark.parametrize("at", [3, 7, 12, 15, 17, 19, 21, 23])
def test_a_worker_that_is_gone_for_good_is_done_without(make: Callable[..., Any], at: int) -> None:
    """Whatever masks it held that no commit has put on disk, and also while one does."""
    one, two = make("one", 1, **SURE), make("two", 2, **SURE)
    run(one, [])
    run(two, [None] * at + ["gone"])
    assert science(one) == science(two)


def test_a_mask_that_two_streams_choose_is_what_the_later_one_made_of_it(make: Callable[..., Any]) -> None:
    """Also where the first one's training comes back last, as after a coordinator that was replaced."""
    wanted, tried = make("wanted", 1, **SHARED), make("tried", 1, **SHARED)
    run(wanted, [])
    coordinator: Any = open_coordinator(tried)
    worker = Worker({**tried, "number": 0})
    swapped = 0
    while not coordinator.finished():
        (job,) = coordinator.next_jobs([0], [])
        now = coordinator._round
        steps = [step for step in now.steps if not step.done] if now is not None and job["kind"] == "advance" else []
        later = [step for step in steps[1:] if step.decision.mask == steps[0].decision.mask]
        if later and job["key"] == steps[0].key:
            version = coordinator._lineages[steps[0].decision.mask].version(coordinator._kept.stored, later[0].length)
            coordinator.report(worker.run({**job, "key": later[0].key, "version": version}))
            swapped += 1
        coordinator.report(Worker({**tried, "number": 1}).run(job))
    assert swapped > 1
    coordinator.end()
    assert science(tried) == science(wanted)


def test_streams_differ_from_one_another_only_in_what_they_bring(make: Callable[..., Any]) -> None:
    """Blocks, and nothing mistaken: each mask has learned the bits that the scenario with tasks given learns."""
    nns = make("nns", **SURE)
    run(nns, [])
    state = state_of(nns)
    assert [row.payload["mask"] for row in state.decisions] == [task for task in range(5) for _ in range(3)]
    given_tasks = make("given", **{**SURE, "scenario": "GNu", "stream": None})
    run(given_tasks, [])
    store, versions = ArtifactStore(Path(given_tasks["store"])), ArtifactStore(Path(nns["versions"]))
    for shard, key in zip(given_tasks["group"]["shards"], state.due[5]["keys"], strict=True):
        learned = store.get(shard["key"]).tensors["state.mask"]
        assert learned.numpy().tobytes() == versions.get(key).tensors["state.mask"].numpy().tobytes()


def test_disk_holds_what_is_needed_and_no_more(make: Callable[..., Any]) -> None:
    tried = make("tried")
    run(tried, [])
    state = state_of(tried)
    (last, before) = [row.payload["versions"] for row in state.commits[:-3:-1]]
    files = {path.stem for path in Path(tried["versions"]).glob("??/*.safetensors")}
    current: dict[str, str] = {}
    for row in state.commits:
        current |= row.payload["versions"]
    assert set(current.values()) <= files
    assert len(files) <= len(current) + len(last) + len(before)


@pytest.mark.parametrize("harm", ["flip", "remove"])
def test_a_version_that_went_bad_is_made_again_to_the_same_bits(make: Callable[..., Any], harm: str) -> None:
    tried, wanted = make("tried"), make("wanted")
    run(wanted, [])
    run(tried, [None] * 25 + ["kill"])
    for path in sorted(Path(tried["versions"]).glob("??/*.safetensors")):
        if harm == "remove":
            path.unlink()
        else:
            content = bytearray(path.read_bytes())
            content[len(content) // 2] ^= 1
            path.write_bytes(content)
    run(tried, [])
    assert science(tried, harm != "flip") == science(wanted, harm != "flip")
    assert state_of(tried).lost


def test_a_bad_version_that_nothing_is_decided_on_is_set_aside(make: Callable[..., Any]) -> None:
    """As a worker wrote it ahead to make room, before everything died."""
    tried, wanted = make("tried", **SURE), make("wanted", **SURE)
    run(wanted, [])
    pool = ScriptedPool({**tried, "state_mb": 0}, iter([None] * 12 + ["kill"]))
    with contextlib.suppress(KeyboardInterrupt):
        drive(open_coordinator(tried), pool, lambda progress: None)
    decided = {row.payload["key"] for row in state_of(tried).decisions}
    undecided = [p for p in Path(tried["versions"]).glob("??/*.safetensors") if p.stem not in decided]
    assert undecided
    for path in undecided:
        path.write_bytes(path.read_bytes()[:-2] + b"xx")
    run(tried, [])
    assert science(tried) == science(wanted)
    assert {Path(row.payload["file"]).parent for row in state_of(tried).lost} == {Path(tried["versions"]) / "corrupt"}


def test_a_corrupt_ledger_falls_back_to_its_snapshot(make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.coordination.coordinator.SNAPSHOT_SECONDS", 0.0)
    tried, wanted = make("tried"), make("wanted")
    run(wanted, [])
    run(tried, [None] * 25 + ["kill"])
    decided = len(state_of(tried).decisions)
    ledger = Path(tried["ledger"])
    for path in ledger.parent.glob("ledger.sqlite-*"):
        path.unlink()
    ledger.write_bytes(b"SQLite format 3\x00" + b"\xff" * 5000)
    coordinator = open_coordinator(tried)
    restored = state_of(tried)
    assert 0 < len(restored.decisions) <= decided
    assert "its last snapshot took its place" in restored.lost[0].payload["reason"]
    coordinator.close()
    run(tried, [])
    assert science(tried) == science(wanted)


@pytest.mark.parametrize("harm", ["missing", "empty", "one digit", "no text"])
def test_damage_that_sqlite_does_not_see_falls_back_to_the_snapshot(
    make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    monkeypatch.setattr("orchestrator.coordination.coordinator.SNAPSHOT_SECONDS", 0.0)
    tried, wanted = make("tried"), make("wanted")
    run(wanted, [])
    run(tried, [None] * 25 + ["kill"])
    ledger = Path(tried["ledger"])
    if harm in ("missing", "empty"):
        for path in ledger.parent.glob("ledger.sqlite*"):
            path.unlink()
        if harm == "empty":
            ledger.touch()
    else:
        payload = (
            "replace(payload, '\"ordinal\":2', '\"ordinal\":3')" if harm == "one digit" else "CAST(x'7bff7d' AS TEXT)"
        )
        with contextlib.closing(sqlite3.connect(ledger)) as db:
            db.execute(
                f"UPDATE rows SET payload = {payload} WHERE kind = 'decision' AND payload LIKE '%\"ordinal\":2,%'"
            )
            db.commit()
        with pytest.raises(CorruptError, match=str(ledger)):
            state_of(tried)
    run(tried, [])
    assert "its last snapshot took its place" in state_of(tried).lost[0].payload["reason"]
    assert science(tried) == science(wanted)


def test_a_corrupt_evaluation_in_the_store_is_made_again(make: Callable[..., Any]) -> None:
    tried, wanted = make("tried"), make("wanted")
    run(wanted, [])
    run(tried, [])
    for path in Path(tried["store"]).glob("??/*.safetensors"):
        path.write_bytes(path.read_bytes()[:-2] + b"xx")
    for path in Path(tried["ledger"]).parent.glob("ledger*"):
        path.unlink()
    run(tried, [])
    assert science(tried) == science(wanted)
    assert state_of(tried).lost


def test_a_pause_is_told_to_a_coordinator_that_was_replaced(make: Callable[..., Any]) -> None:
    tried = make("tried")
    coordinator = open_coordinator(tried)
    status = drive(coordinator, ScriptedPool(tried, iter([])), lambda progress: None, Asked(pause=lambda: True))
    assert status == "interrupted"
    assert not state_of(tried).decisions  # nothing was under way


def test_a_pause_does_not_wait_for_masks_to_be_made_again(make: Callable[..., Any]) -> None:
    settings = make("paused")
    run(settings, [None] * 24 + ["kill"])
    for path in Path(settings["versions"]).glob("??/*.safetensors"):
        path.unlink()
    coordinator = open_coordinator(settings)
    assert all(job["key"].startswith("rebuild-") for job in coordinator.next_jobs([0, 1], []))
    assert coordinator.next_jobs([0, 1], [])
    coordinator.pause()
    assert coordinator.next_jobs([0, 1], []) == []
    assert coordinator.finished()
    coordinator.close()
    run(settings, [])
    assert state_of(settings).status == "done"


def test_a_pause_ends_the_round_and_commits_it(make: Callable[..., Any]) -> None:
    tried, wanted = make("tried"), make("wanted")
    run(wanted, [])
    calls = iter([False] * 11)
    tried["commit_every"] = 60.0
    status = drive(
        open_coordinator(tried),
        ScriptedPool(tried, iter([])),
        lambda progress: None,
        Asked(pause=lambda: next(calls, True)),
    )
    assert status == "interrupted"
    state = state_of(tried)
    assert 0 < len(state.decisions) < 15
    assert len(state.decisions) == state.round
    assert state.ended == "interrupted"
    run(tried, [])
    assert science(tried) == science(wanted)


def test_memory_for_masks_is_bounded_and_changes_nothing(make: Callable[..., Any]) -> None:
    """A limit of nothing keeps one mask in memory: every other one goes to disk and comes back."""
    tried, wanted = make("tried"), make("wanted")
    tried["state_mb"], tried["commit_every"] = 0, 60.0
    run(wanted, [])
    run(tried, [])
    assert science(tried) == science(wanted)
    files = {path.stem for path in Path(tried["versions"]).glob("??/*.safetensors")}
    assert files == set(state_of(tried).due[5]["keys"])  # what was written only to make room is gone


def test_an_error_in_training_fails_the_group_and_a_resume_completes_it(
    make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried, wanted = make("tried"), make("wanted")
    run(wanted, [])
    with monkeypatch.context() as patched:
        patched.setattr("supsup_core.methods.supsup.train", lambda *_: 1 / 0)
        assert drive(open_coordinator(tried), ScriptedPool(tried, iter([])), lambda progress: None) == "failed"
    (failure,) = state_of(tried).failed.values()
    assert "ZeroDivisionError" in failure.payload["error"]
    assert "round 0" in failure.payload["what"]
    run(tried, [])
    assert science(tried) == science(wanted)
