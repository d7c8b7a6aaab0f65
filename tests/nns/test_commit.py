"""Commits of an NNs run: the masks are saved first, then all rows are written in one transaction."""

from __future__ import annotations

import time

import pytest

from orchestrator.base.failpoints import set_failpoint
from orchestrator.coordination.group_journal import GroupJournal
from orchestrator.coordination.messages import SavedMasks, SaveJob
from orchestrator.nns.commit import Commits, Saving
from orchestrator.nns.mask_versions import Lineages
from orchestrator.records.ledgers.ledger import Entry, LedgerReader
from orchestrator.records.rows import EvaluationDue, RoundsCommitted
from supsup_core.nns.streams import Segment
from tests.nns.small_runs import Make
from tests.records.samples import DECIDED, ONE_KIND, OTHER_KIND

DUE = EvaluationDue(2, tasks=(0,), numbers=(0,), keys=("ab",), right=((0,),))


@pytest.fixture
def lineages() -> Lineages:
    """The lineages of three masks, each with one segment."""
    known = Lineages("identity", segment_batches=20)
    for number in range(3):
        known.extend(number, Segment(number, 0))
    return known


def test_each_worker_saves_the_masks_that_it_holds(lineages: Lineages) -> None:
    saving = Saving(4, [2], changed=[0, 1, 2], holders={0: 1, 2: 1}, lineages=lineages)
    found = {preference.worker: preference for preference in saving.jobs(set())}
    assert found.keys() == {1, None}
    assert {worker: preference.only for worker, preference in found.items()} == {1: True, None: False}
    jobs = {worker: preference.job for worker, preference in found.items()}
    assert all(isinstance(job, SaveJob) for job in jobs.values())
    masks = {worker: [v.mask for v in job.versions] for worker, job in jobs.items() if isinstance(job, SaveJob)}
    assert masks == {1: [0, 2], None: [1]}
    assert not saving.over
    assert [saving.add_saved(jobs[1].key, SavedMasks(10, 0.5)), saving.add_saved("other", SavedMasks(1, 0.5))] == [
        True,
        False,
    ]
    assert not saving.add_saved(jobs[1].key, SavedMasks(10, 0.5))  # a duplicate report
    assert saving.add_saved(jobs[None].key, SavedMasks(5, 0.5))
    assert saving.over
    assert saving.num_bytes == 15


def test_a_worker_that_died_no_longer_has_to_save_its_masks(lineages: Lineages) -> None:
    holders = {0: 1}
    saving = Saving(4, [], changed=[0], holders=holders, lineages=lineages)
    del holders[0]
    (preference,) = saving.jobs(set())
    assert (preference.worker, preference.only) == (None, False)


def test_a_commit_without_changed_masks_saves_nothing(lineages: Lineages) -> None:
    assert Saving(4, [], changed=[], holders={}, lineages=lineages).over


def test_all_rows_of_a_commit_are_written_in_one_transaction(make: Make, lineages: Lineages) -> None:
    settings = make("rows")
    journal = GroupJournal(settings, lambda restored: "")
    commits = Commits(journal, lineages, every=60.0, settles=False)
    commits.add([Entry(DECIDED, b"slopes")])
    commits.dirty[0] = None
    assert commits.has_entries
    saving = commits.begin(1, [2], {})
    (preference,) = saving.jobs(set())
    saving.add_saved(preference.job.key, SavedMasks(10, 0.5))

    def kinds() -> list[str]:
        with LedgerReader(settings.folder.ledger) as reader:
            return [row.event.kind for row in reader.rows()]

    seen: list[list[str]] = []
    for point in ("committing", "in_commit", "committed"):
        set_failpoint(point, lambda subject: seen.append(kinds()))
    try:
        started = time.perf_counter()
        journal.machines.update((OTHER_KIND, ONE_KIND))
        commits.write(1, {0: lineages.latest(0)}, [DUE], training_seconds=2.5)
        commits.end(started)
    finally:
        for point in ("committing", "in_commit", "committed"):
            set_failpoint(point, None)
    assert seen == [["plan"], ["plan"], ["plan", "decision", "due", "committed"]]
    event = journal.state.commits[-1].event
    assert event == RoundsCommitted(1, {0: lineages.latest(0)}, 10, 2.5, event.seconds, (ONE_KIND, OTHER_KIND))
    assert not journal.machines  # the next commit begins without them
    assert (commits.dirty, commits.saving, commits.has_entries) == ({}, None, False)
    journal.close()


def test_a_commit_is_due_when_the_next_round_would_exceed_the_interval(make: Make, lineages: Lineages) -> None:
    journal = GroupJournal(make("due"), lambda restored: "")
    now = time.monotonic()
    assert not Commits(journal, lineages, every=60.0, settles=False).is_due(now, lambda masks: False)
    assert Commits(journal, lineages, every=60.0, settles=False).is_due(now - 61, lambda masks: False)
    journal.close()


def test_a_commit_that_is_almost_due_waits_for_look_ahead_training(make: Make, lineages: Lineages) -> None:
    journal = GroupJournal(make("near"), lambda restored: "")
    commits = Commits(journal, lineages, every=60.0, settles=True)
    half = time.monotonic() - 31
    assert not commits.is_due(half, lambda masks: True)
    assert commits.is_settling
    assert commits.is_due(half, lambda masks: False)
    journal.close()
