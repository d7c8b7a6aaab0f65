"""The coordinator of NNs: faults during a run change no mask, decision or result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.base.failpoints import set_failpoint
from orchestrator.coordination.messages import AdvanceJob
from orchestrator.execution.open_coordinator import open_coordinator
from orchestrator.execution.worker import Worker
from orchestrator.nns.round import Round
from orchestrator.records import this_machine
from supsup_core.errors import SupSupError
from tests.nns.small_runs import SHARED, SURE, Make, files_of, science
from tests.records.samples import ONE_KIND, OTHER_KIND
from tests.scripted import ScriptedPool, needs_torch, run, run_with, state_of


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.sampled_from([None, None, None, "lost", "lost after", "replace", "kill", "kill after"]), max_size=60),
    st.sampled_from([0.001, 60.0]),
    st.booleans(),
)
def test_random_faults_change_no_result(
    make: Make, tmp_path: Path, script: list[str | None], commit_every: float, shared: bool
) -> None:
    changes = SHARED if shared else {}
    wanted = make(f"wanted-{shared}", **changes)
    if not wanted.folder.ledger.exists():
        run(wanted)
    number = sum(1 for _ in tmp_path.glob("tried*"))
    tried = replace(make(f"tried{number}", **changes), commit_every=commit_every)
    while script:
        ends = [script.index(fault) for fault in ("kill", "kill after") if fault in script]
        cut = min(ends, default=len(script) - 1) + 1
        run(tried, script[:cut])
        script = script[cut:]
    run(tried)
    assert science(tried) == science(wanted)


def test_replies_of_a_worker_are_unpickled_without_torch(make: Make) -> None:
    pool = run(make("asked"), [])
    assert {"decide", "advance", "save"} <= {job.kind for job in pool.done}
    assert not needs_torch(pool.replies)


def test_a_mask_that_two_streams_choose_ends_as_the_later_stream_trained_it(make: Make) -> None:
    """This holds even if the reply of the first stream arrives last, for example after a restart of the coordinator."""
    wanted, tried = make("wanted", 1, **SHARED), make("tried", 1, **SHARED)
    run(wanted)
    rounds: list[Round] = []
    set_failpoint("decided", lambda subject: rounds.append(subject) if isinstance(subject, Round) else None)
    coordinator = open_coordinator(tried)
    worker = Worker(tried, 0)
    swapped = 0
    while not coordinator.finished():
        ((_, job),) = coordinator.next_jobs([0], [])
        entries = [entry for entry in rounds[-1].decided if not entry.done] if isinstance(job, AdvanceJob) else []
        later = [entry for entry in entries[1:] if entry.decision.mask == entries[0].decision.mask]
        if later and isinstance(job, AdvanceJob) and job.key == entries[0].key:
            second = later[0]
            assert second.key is not None
            version = replace(
                job.version,
                key=second.key,
                segments=(*job.version.segments, (second.segment.task, second.segment.index)),
                keys=(*job.version.keys, second.key),
            )
            coordinator.report(worker.run(AdvanceJob(second.key, version)))
            swapped += 1
        coordinator.report(Worker(tried, 1).run(job))
    assert swapped > 1
    coordinator.end()
    assert science(tried) == science(wanted)


def test_masks_equal_those_learned_with_given_tasks(make: Make) -> None:
    """Tasks arrive in blocks and no decision is wrong, so each mask has the same bits as in GNu."""
    nns = make("nns", **SURE)
    run(nns)
    state = state_of(nns)
    assert [row.event.mask for row in state.decisions] == [task for task in range(5) for _ in range(3)]
    given_tasks = make("given", **{**SURE, "scenario": "GNu", "stream": None})
    run(given_tasks)
    store, versions = given_tasks.open_store(), nns.open_masks()
    for shard, key in zip(given_tasks.group.shards, state.due[5].keys, strict=True):
        learned = store.get(shard.key).tensors["state.mask"]
        assert learned.numpy().tobytes() == versions.get(key).tensors["state.mask"].numpy().tobytes()


def test_only_needed_versions_stay_on_disk(make: Make) -> None:
    tried = make("tried")
    run(tried)
    state = state_of(tried)
    (last, before) = [row.event.versions for row in state.commits[:-3:-1]]
    files = {path.stem for path in files_of(tried)}
    current: dict[str, str] = {}
    for row in state.commits:
        current |= row.event.versions
    assert set(current.values()) <= files
    assert len(files) <= len(current) + len(last) + len(before)


def test_the_memory_limit_for_masks_changes_no_result(make: Make) -> None:
    """With a limit of 0 bytes, only one mask stays in memory. All others are written to disk and read again."""
    tried, wanted = replace(make("tried"), state_mb=0, commit_every=60.0), make("wanted")
    run(wanted)
    run(tried)
    assert science(tried) == science(wanted)
    files = {path.stem for path in files_of(tried)}
    assert files == set(state_of(tried).due[5].keys)  # versions written only to free memory are deleted


def test_an_error_in_training_fails_the_group_and_a_resume_completes_it(make: Make) -> None:
    tried, wanted = make("tried"), make("wanted")
    run(wanted)
    set_failpoint("segment_begins", lambda subject: 1 / 0)
    assert run_with(tried, ScriptedPool(tried, iter([]))) == "failed"
    set_failpoint("segment_begins", None)
    (failure,) = state_of(tried).failed.values()
    assert "ZeroDivisionError" in failure.event.error
    assert "round 0" in failure.event.what
    run(tried)
    assert science(tried) == science(wanted)


def test_each_commit_and_mask_version_names_the_machine_kinds_that_contributed(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is killed and resumed on another machine kind. A mask that both kinds trained names both."""
    tried = make("tried")
    monkeypatch.setattr(this_machine, "this_machine", lambda *_: ONE_KIND)
    run(tried, [None] * 25 + ["kill"])
    num_commits = len(state_of(tried).commits)
    assert {row.event.machines for row in state_of(tried).commits} == {(ONE_KIND,)}
    monkeypatch.setattr(this_machine, "this_machine", lambda *_: OTHER_KIND)
    run(tried)
    state = state_of(tried)
    later = [row.event.machines for row in state.commits[num_commits:]]
    both = (ONE_KIND, OTHER_KIND)
    assert both in later
    assert set(later) <= {both, (OTHER_KIND,)}
    versions = tried.open_masks()
    kinds = {key: versions.get(key).facts.machines for key in state.due[5].keys}
    decided: dict[int | None, set[bool]] = {}
    for row in state.decisions:
        before = row.event.round < state.commits[num_commits - 1].event.round
        decided.setdefault(row.event.mask, set()).add(before)
    wanted = {True: ONE_KIND, False: OTHER_KIND}
    for number, key in zip(state.due[5].numbers, state.due[5].keys, strict=True):
        assert set(kinds[key]) == {wanted[before] for before in decided[number]}
    (run_id,) = [planned.run_id for planned in tried.group.runs]
    assert state.machines_of(run_id) == both


def test_a_worker_that_draws_other_frozen_weights_fails_the_run(make: Make, other_weights: Callable[[], None]) -> None:
    """The coordinator draws its weights before the first job begins, and the worker draws others."""
    tried = make("tried")
    set_failpoint("job_begins", lambda job: other_weights())
    run(tried)
    state = state_of(tried)
    assert state.status == "failed"
    for row in state.failed.values():
        assert "a worker and the coordinator draw different frozen weights from the same seed" in row.event.error
        assert "numpy 99.0, " in row.event.error.partition(", and the coordinator has")[0]
    assert not state.decisions


def test_a_run_with_masks_of_other_frozen_weights_is_not_resumed(make: Make, other_weights: Callable[[], None]) -> None:
    tried = make("tried")
    run(tried, [None] * 25 + ["kill"])
    other_weights()
    with pytest.raises(
        SupSupError, match="this result belongs to other frozen weights than this process draws"
    ) as refused:
        open_coordinator(tried)
    assert Path(str(refused.value).partition(": ")[0]) in files_of(tried)
