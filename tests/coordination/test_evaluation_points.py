"""An evaluation point is recorded when all its evaluations are done."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.coordination.evaluation_points import DonePrefix, EvaluationPoints, Points
from orchestrator.coordination.group_journal import GroupJournal
from orchestrator.coordination.settings import GroupSettings
from orchestrator.records.planned_group import PlannedRun
from orchestrator.records.rows import TaskEvaluated
from tests.records.samples import EVALUATED


@given(st.lists(st.sets(st.integers(0, 9)), max_size=6))
def test_the_prefix_is_the_number_of_leading_keys_that_are_done(steps: list[set[int]]) -> None:
    prefix = DonePrefix([str(number) for number in range(10)])
    done: set[str] = set()
    for step in steps:
        done |= {str(number) for number in step}
        wanted = next((number for number in range(10) if str(number) not in done), 10)
        assert prefix.length(done) == wanted


def test_a_prefix_that_was_reset_checks_all_keys_again() -> None:
    prefix = DonePrefix(["a", "b"])
    assert prefix.length({"a", "b"}) == 2
    prefix.reset()
    assert prefix.length({"b"}) == 0


def points_of(journal: GroupJournal, known: int) -> EvaluationPoints:
    """Returns the evaluation points of the plan; only those of the first `known` tasks have keys yet."""

    def named(run: PlannedRun) -> Points:
        return {n: keys for n, keys in run.points.items() if n <= known}

    return EvaluationPoints(journal, named, lambda n, keys: {"num_bytes": 10.0 * n})


def evaluate(journal: GroupJournal, *keys: str) -> None:
    evaluations = journal.group.evaluations_by_key
    for key in keys:
        journal.record(TaskEvaluated(key, replace(EVALUATED, task=evaluations[key].task), "0"))


def test_points_are_recorded_in_order_and_once(group: GroupSettings) -> None:
    journal = GroupJournal(group, lambda restored: "")
    points = points_of(journal, known=3)
    (run,) = journal.group.runs
    first, last = run.points[1], run.points[3]
    evaluate(journal, *last)
    points.record_complete()
    assert not journal.state.points  # the previous point is not complete
    evaluate(journal, *first)
    points.record_complete()
    points.record_complete()
    assert list(journal.state.points) == [(run.run_id, 1)]  # how well task 1 was learned is not known yet
    evaluate(journal, *run.when_learned)
    points.record_complete()
    assert list(journal.state.points) == [(run.run_id, 1), (run.run_id, 3)]
    event = journal.state.points[(run.run_id, 3)].event
    assert event.keys == last
    assert event.when_learned == run.when_learned
    assert event.metrics["forgetting"] == -event.metrics["backward_transfer"]
    assert event.metrics["num_bytes"] == 30.0
    assert 0 <= event.metrics["accuracy"] <= 1
    journal.close()


def test_a_point_whose_evaluation_keys_are_not_known_yet_is_not_recorded(group: GroupSettings) -> None:
    journal = GroupJournal(group, lambda restored: "")
    (run,) = journal.group.runs
    evaluate(journal, *run.points[1], *run.points[3])
    points_of(journal, known=2).record_complete()
    assert list(journal.state.points) == [(run.run_id, 1)]
    journal.close()
