"""A launch checks each group's stored results once, and then runs the groups that have work left."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.base.environment import describe
from orchestrator.coordination.settings import GroupSettings
from orchestrator.execution.launch import launch, settings_of, take_stock, tasks_at_once
from orchestrator.records import artifact_store
from orchestrator.records.artifact_format import Header, verify
from orchestrator.records.rows import AnyRow, GroupPlanned, LaunchEnded
from orchestrator.spec.sweep_config import Resources
from orchestrator.sweeps.sweep import Sweep, open_sweep
from supsup_core.errors import SupSupError
from tests.local_runs import ledgers

NNS: dict[str, Any] = {
    "scenario": "NNs",
    "training": {"num_batches": 20},
    "stream": {"segment_batches": 10},
    "inference": {"strict_images": 0},
}


@pytest.fixture
def open_file(sweep_file: Callable[..., Path], tmp_path: Path) -> Callable[..., Sweep]:
    """Returns a function that opens a small sweep, with changes, in the output `runs`."""

    def opened(**changes: Any) -> Sweep:
        return open_sweep(sweep_file(**{"training": {"num_batches": 5}, **changes}), [f"output={tmp_path / 'runs'}"])

    return opened


@pytest.fixture
def verified(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts, for each content key, how often the bytes of the artifact are hashed."""
    counts: Counter[str] = Counter()

    def counting(key: str, blob: bytes, where: str) -> Header:
        counts[key] += 1
        return verify(key, blob, where)

    monkeypatch.setattr(artifact_store, "verify", counting)
    return counts


def stock(sweep: Sweep, cluster: str | None = None) -> dict[str, GroupSettings]:
    return take_stock(sweep, sweep.plan(), describe(sweep.imports_folder), cluster)


def interrupt_after(count: int) -> Callable[[], bool]:
    """Returns an interrupt check that returns True from call number `count` + 1 on."""
    calls: Iterator[bool] = iter([False] * count)
    return lambda: next(calls, True)


def launch_and_interrupt(sweep: Sweep, count: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        launch(sweep, stock(sweep), None, interrupt_after(count))


def plans(rows: dict[str, Any]) -> list[int]:
    return [sum(isinstance(row.event, GroupPlanned) for row in found) for found in rows.values()]


def ends(rows: list[AnyRow]) -> list[str]:
    return [row.event.status for row in rows if isinstance(row.event, LaunchEnded)]


@pytest.mark.parametrize("changes", [{}, NNS], ids=["GNu", "NNs"])
def test_a_launch_records_one_plan_for_each_group(open_file: Callable[..., Sweep], changes: dict[str, Any]) -> None:
    sweep = open_file(**changes, seeds=[0, 1])
    for number in (1, 2):
        launch(sweep, stock(sweep), None)
        assert plans(dict(ledgers(sweep))) == [number, number]
    assert all(ends(list(rows)) == ["done"] * 2 for rows in ledgers(sweep).values())


def test_an_interrupted_launch_and_its_resume_record_one_plan_each(open_file: Callable[..., Sweep]) -> None:
    sweep = open_file()
    launch_and_interrupt(sweep, 2)
    assert plans(dict(ledgers(sweep))) == [1]
    launch(sweep, stock(sweep), None)
    assert plans(dict(ledgers(sweep))) == [2]
    (rows,) = ledgers(sweep).values()
    assert ends(list(rows)) == ["done"]


def test_a_launch_of_a_finished_sweep_hashes_every_trained_task_once(
    open_file: Callable[..., Sweep], verified: Counter[str]
) -> None:
    sweep = open_file()
    launch(sweep, stock(sweep), None)
    verified.clear()
    unfinished = stock(sweep)
    launch(sweep, unfinished, None)
    assert unfinished == {}
    (group,) = sweep.plan()
    assert verified == {shard.key: 1 for shard in group.shards}  # evaluations are read from the ledger


def test_resuming_a_half_finished_sweep_hashes_each_artifact_at_the_start_and_when_it_is_used(
    open_file: Callable[..., Sweep], verified: Counter[str]
) -> None:
    sweep = open_file(evaluation={"at": [3], "forgetting": False})
    launch_and_interrupt(sweep, 3)  # records three tasks and no evaluation; the fourth reply is not recorded
    (group,) = sweep.plan()
    verified.clear()
    unfinished = stock(sweep)
    shards = {shard.key: 1 for shard in group.shards}
    found = {key: 1 for key in sweep.store if key not in shards}
    assert verified == shards | found
    launch(sweep, unfinished, None)
    assert {key: verified[key] for key in shards} == dict.fromkeys(shards, 2)  # the second time for the evaluation
    assert {key: verified[key] for key in found} == found


def test_a_task_that_another_sweep_has_trained_is_hashed_once_and_recorded(
    open_file: Callable[..., Sweep], verified: Counter[str]
) -> None:
    launch(first := open_file(), stock(first), None)
    other = open_file(name="other")
    verified.clear()
    assert stock(other) == {}
    assert set(verified.values()) == {1}
    assert set(verified) == set(other.store)


def test_only_groups_with_work_left_are_run(open_file: Callable[..., Sweep]) -> None:
    sweep = open_file(seeds=[0, 1])
    groups = sweep.plan()
    unfinished = stock(sweep)
    assert list(unfinished) == [group.group_id for group in groups]
    assert all(settings.continues_launch for settings in unfinished.values())
    launch(sweep, {groups[0].group_id: unfinished[groups[0].group_id]}, None)
    assert list(stock(sweep)) == [groups[1].group_id]


def test_settings_contain_the_paths_of_the_group_and_can_be_pickled(
    open_file: Callable[..., Sweep], tmp_path: Path
) -> None:
    sweep = open_file(imports=[], commit_every=2.5)
    (group,) = sweep.plan()
    settings = settings_of(sweep, group, describe(tmp_path), 3)
    assert settings.group == group.planned()
    assert settings.folder == sweep.folder.group(group.group_id)
    assert settings.open_store().folder == sweep.store.folder
    assert (settings.num_workers, settings.storage, settings.continues_launch) == (3, None, False)
    assert (settings.commit_every, settings.threads, settings.device) == (2.5, 1, "cpu")
    assert pickle.loads(pickle.dumps(settings)) == settings


def test_settings_of_a_sweep_with_a_storage_contain_its_urls(sweep_file: Callable[..., Path], tmp_path: Path) -> None:
    url = f"file://{tmp_path}/stored"
    sweep = open_sweep(sweep_file(storage=url, snapshot_every=3.0), [f"output={tmp_path / 'runs'}"])
    groups = sweep.plan()
    sweep.save(groups)
    storage = settings_of(sweep, groups[0], describe(tmp_path), 1).storage
    assert storage is not None
    folder = f"{url}/sweeps/{sweep.sweep_id}/groups/{groups[0].group_id}"
    assert (storage.store, storage.group, storage.masks) == (f"{url}/store", folder, f"{folder}/masks")
    assert storage.snapshot_every == 3.0
    assert len(storage.output_id) == 8


def test_tasks_are_trained_together_as_the_device_and_the_net_allow(open_file: Callable[..., Sweep]) -> None:
    (group,) = open_file(benchmark={"name": "permuted", "base": "digits", "num_tasks": 100}).plan()
    cpu = Resources()
    assert tasks_at_once(cpu, group, 2) == 1
    assert tasks_at_once(replace(cpu, tasks_at_once=5), group, 2) == 5
    cuda = replace(cpu, device="cuda")
    assert tasks_at_once(cuda, group, 2) == 32
    assert tasks_at_once(cuda, group, 50) == 2
    assert tasks_at_once(replace(cuda, tasks_at_once=3), group, 2) == 3
    wide = open_file(net={"name": "fc_1024_1024"}, benchmark={"name": "permuted", "base": "digits", "num_tasks": 100})
    (large,) = wide.plan()
    assert tasks_at_once(cuda, large, 2) == 14  # limited by the memory of the stacked weights
    (alone,) = open_file(method={"name": "supsup", "transfer": "masks"}).plan()
    assert tasks_at_once(replace(cpu, tasks_at_once=5), alone, 2) == 1


def test_a_ledger_that_cannot_be_used_ends_the_launch(open_file: Callable[..., Sweep]) -> None:
    sweep = open_file()
    (group,) = sweep.plan()
    sweep.folder.group(group.group_id).ledger.mkdir(parents=True)
    with pytest.raises(SupSupError, match="cannot be used"):
        stock(sweep)


def test_the_process_of_a_trial_loads_no_torch() -> None:
    """Loading torch would delay the start of the workers, which load it too, by a second."""
    code = (
        "import sys, orchestrator.execution.tune_trial, orchestrator.coordination.task_coordinator\n"
        "print('torch' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "False\n"
