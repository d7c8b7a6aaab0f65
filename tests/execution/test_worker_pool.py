"""The pool with one worker in this process, which `--local` uses."""

from __future__ import annotations

import pytest

from orchestrator.coordination.messages import Done
from orchestrator.coordination.settings import GroupSettings
from orchestrator.execution.worker import Worker
from orchestrator.execution.worker_pool import LocalPool
from tests.execution.test_worker import first_job


def test_a_job_is_done_within_wait(group: GroupSettings) -> None:
    pool = LocalPool(Worker(group, 0), lambda: False)
    assert (pool.num_workers, pool.absent()) == (1, set())
    job = first_job(group)
    pool.submit(0, job)
    assert not list(group.open_store())
    ((worker, reply),) = pool.wait(0.0)
    assert worker == 0
    assert isinstance(reply, Done)
    assert list(group.open_store()) == [job.key]


def test_an_interrupt_that_a_library_catches_is_raised_again(group: GroupSettings) -> None:
    """The job's reply is discarded, because the job may have failed because of the interrupt."""
    pool = LocalPool(Worker(group, 0), lambda: True)
    pool.submit(0, first_job(group))
    with pytest.raises(KeyboardInterrupt):
        pool.wait(0.0)
