"""Ray trials and worker actors, on a local Ray cluster."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import ray
from ray.exceptions import GetTimeoutError

from orchestrator.base.environment import describe, usable_cpus
from orchestrator.base.library_internals import RayAutoscaling
from orchestrator.coordination.messages import Done, Failed, Job, Lost, Reply
from orchestrator.coordination.settings import GroupSettings
from orchestrator.execution.cluster_room import is_pending, look_at_cluster
from orchestrator.execution.launch import run_on_ray, take_stock
from orchestrator.execution.ray_actors import ActorPool, WorkerActor
from orchestrator.execution.ray_session import connected
from orchestrator.records.group_state import GroupState
from orchestrator.records.ledgers.ledger import FencedError, LedgerReader, LedgerWriter
from orchestrator.records.rows import GroupPlanned, ShardTrained
from orchestrator.spec.sweep_config import Resources
from orchestrator.sweeps.sweep import Sweep, open_sweep
from supsup_core.errors import SupSupError
from tests.execution.test_worker import first_job
from tests.outputs import below, trained, wait_for

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module", autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One home folder for all tests of this module: Ray stores its token there, and a process reads it only once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        yield


def sweep_of(file: Path) -> Sweep:
    """Opens the sweep of a file, and saves it in an output beside the file."""
    sweep = open_sweep(file, [f"output={file.parent / 'runs'}"])
    sweep.save(sweep.plan())
    return sweep


def stock(sweep: Sweep) -> dict[str, GroupSettings]:
    return take_stock(sweep, sweep.plan(), describe(sweep.imports_folder), "local")


def ledger_of(sweep: Sweep) -> Path:
    (group,) = sweep.folder.groups()
    return group.ledger


@contextlib.contextmanager
def meanwhile(act: Callable[[], object]) -> Iterator[list[BaseException]]:
    """Calls `act` in another thread while the block runs. Yields a list that collects the errors of `act`."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            act()
        except BaseException as error:  # noqa: BLE001 - the test reports it
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    yield errors
    thread.join()


@pytest.mark.long
def test_a_trial_that_is_fenced_ends_the_launch_as_fenced(sweep_file: Callable[..., Path]) -> None:
    """The error keeps its class when Ray passes it from the trial's process, even after the trial reported progress."""
    sweep = sweep_of(
        sweep_file(
            training={"num_batches": 300},
            benchmark={"name": "permuted", "num_tasks": 30, "base": "digits"},
            evaluation={"at": [30]},
        )
    )
    settings = stock(sweep)

    def fence() -> None:
        wait_for(lambda: trained(sweep.output.path))
        LedgerWriter(ledger_of(sweep)).close()

    with meanwhile(fence) as errors, pytest.raises(SupSupError, match="another process has taken over") as raised:
        run_on_ray(sweep, settings, "local")
    assert not errors
    assert type(raised.value.__cause__) is FencedError
    assert "has taken over this ledger" in str(raised.value.__cause__)


@pytest.mark.long
def test_an_error_of_a_trial_before_its_first_report_ends_the_launch(sweep_file: Callable[..., Path]) -> None:
    sweep = sweep_of(sweep_file())
    settings = stock(sweep)
    ledger = ledger_of(sweep)
    for path in list(ledger.parent.glob("ledger*")):
        path.unlink()
    ledger.mkdir()
    with pytest.raises(SupSupError, match=r"ledger\.sqlite: the ledger cannot be used") as raised:
        run_on_ray(sweep, settings, "local")
    assert type(raised.value) is SupSupError


@pytest.mark.long
def test_a_trial_whose_process_is_killed_is_restarted(sweep_file: Callable[..., Path]) -> None:
    sweep = sweep_of(
        sweep_file(
            training={"num_batches": 300},
            benchmark={"name": "permuted", "num_tasks": 8, "base": "digits"},
            evaluation={"at": [8]},
        )
    )
    settings = stock(sweep)

    def kill() -> None:
        wait_for(lambda: trained(sweep.output.path))
        (pid, *_) = wait_for(lambda: below(os.getpid(), "ImplicitFunc"))
        os.kill(pid, signal.SIGKILL)

    with meanwhile(kill) as errors:
        run_on_ray(sweep, settings, "local")
    assert not errors
    with LedgerReader(ledger_of(sweep)) as reader:
        rows = reader.rows()
    assert GroupState().apply(rows).status == "done"
    assert sum(isinstance(row.event, GroupPlanned) for row in rows) == 1
    # A mask that was stored just before the kill also has a row. The row says that the mask was found in the store.
    keys = [row.event.key for row in rows if isinstance(row.event, ShardTrained)]
    assert len(keys) == len(set(keys)) == 8


def test_files_of_the_working_folder_replace_no_module_in_a_worker(
    sweep_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Ray itself lets its processes import from the working folder first."""
    sweep = sweep_of(sweep_file())
    for name in ("random", "safetensors", "supsup_core"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('of the user')\n")
    monkeypatch.chdir(tmp_path)
    run_on_ray(sweep, stock(sweep), "local")
    with LedgerReader(ledger_of(sweep)) as reader:
        assert GroupState().apply(reader.rows()).status == "done"
    assert Path.cwd() == tmp_path


def test_an_actor_that_imports_another_source_than_the_command_trains_nothing(group: GroupSettings) -> None:
    actor = WorkerActor(replace(group, code_digest="0" * 64), 0)
    reply = actor.run(first_job(group))
    assert isinstance(reply, Failed)
    assert "differs from the source code of the command" in reply.error


class Frail(WorkerActor):
    """A worker that dies at its first job, or raises an error outside the job."""

    def run(self, job: Job) -> Reply:
        if self._number == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        raise ZeroDivisionError("outside the job")


def replies_of(pool: ActorPool, job: Job, *workers: int) -> dict[int, Reply]:
    """Submits the job to each worker and returns the replies by worker."""
    wait_for(lambda: [True] if not pool.absent() else [])
    for worker in workers:
        pool.submit(worker, job)
    found: dict[int, Reply] = {}
    while len(found) < len(workers):
        found |= dict(pool.wait(5.0))
    return found


def test_replies_of_actors_that_succeed_die_or_raise_an_error(
    group: GroupSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))  # Ray's processes import Frail from this module
    job = first_job(group)
    with connected("local", Resources()):
        pool = ActorPool(group, {"CPU": 0.5})
        assert isinstance(replies_of(pool, job, 0)[0], Done)
        frail = ActorPool(group, {"CPU": 0.5}, ray.remote(max_restarts=0)(Frail))
        found = replies_of(frail, job, 0, 1)
        lost, failed = found[0], found[1]
        assert isinstance(lost, Lost)
        assert (lost.kind, lost.node_lost, lost.out_of_memory) == ("train", False, False)
        assert "worker process has died" in lost.reason
        assert isinstance(failed, Failed)
        assert "outside the job" in failed.error
        assert frail.absent() == {0}  # the worker that died is being replaced
        pool.abandon(0)
        pool.submit(0, job)
        ((_, reply),) = wait_for(lambda: pool.wait(5.0))
        assert isinstance(reply, Lost)
        with monkeypatch.context() as patch:
            patch.setattr(ray, "get", late)
            lost = replies_of(pool, job, 1)[1]
        assert isinstance(lost, Lost)
        assert "cannot be fetched: Get timed out" in lost.reason
        assert isinstance(replies_of(pool, job, 1)[1], Done)  # by a new worker
        check_room()


def late(reference: object, timeout: float) -> object:
    """Raises the error of ray.get if an object does not arrive in time."""
    raise GetTimeoutError("Get timed out: some object(s) not ready.")


def check_room() -> None:
    """Asserts that a placement group without room is told apart from one with room, and that the room is counted."""
    bundles = [{"CPU": 500.0}, {"CPU": 1.0}]
    assert not is_pending(bundles)
    waiting = ray.util.placement_group(bundles)
    wait_for(lambda: [True] if is_pending(bundles) else [])
    assert not is_pending([{"CPU": 1.0}])
    room = look_at_cluster()
    assert len(room.nodes) == 1
    assert room.nodes[0]["CPU"] == max(2, usable_cpus())
    assert room.free.get("CPU", 0.0) <= room.nodes[0]["CPU"]
    assert room.autoscaling == RayAutoscaling()
    ray.util.remove_placement_group(waiting)
    wait_for(lambda: [] if is_pending(bundles) else [True])
