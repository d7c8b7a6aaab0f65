"""What a command says while the cluster has no room for its training groups. Ray and the clock are replaced."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from orchestrator.base.library_internals import RayAutoscaling
from orchestrator.base.output_folder import OutputFolder, SweepFolder
from orchestrator.coordination.control_files import forget_waiting, waiting_texts
from orchestrator.execution import cluster_room, schedulers
from orchestrator.execution.cluster_room import (
    FIRST_SECONDS,
    REPEAT_SECONDS,
    Asked,
    Room,
    RoomWatch,
    WaitingLog,
    explain,
)
from tests.execution.clock import Clock

CPU = Asked(3, {"CPU": 2.0})
GPU = Asked(2, {"CPU": 1.0, "GPU": 1.0})
IDLE = RayAutoscaling()
SMALL = Room([{"CPU": 4.0}, {"CPU": 1.0, "memory": 9.0}], {"CPU": 5.0}, IDLE)
FULL = Room([{"CPU": 4.0}, {"CPU": 4.0}], {"CPU": 2.0}, IDLE)


def helps(asked: Asked, room: Room) -> str:
    """Returns the part of the message that says what would help."""
    return explain("x", asked, room).partition("); ")[2]


def test_a_message_says_what_is_asked_and_what_is_there() -> None:
    assert explain("1 training group has waited", CPU, SMALL).startswith(
        "1 training group has waited: a group needs 3 workers with 2 CPUs each; the cluster has 2 nodes with 5 CPUs "
        "(free: 5 CPUs); "
    )
    with_gpu = Room([{"CPU": 8.0, "GPU": 1.0}], {"CPU": 8.0}, IDLE)
    assert (
        "2 workers with 1 CPU and 1 GPU each; the cluster has 1 node with 8 CPUs and 1 GPU (free: 8 CPUs and 0 GPUs)"
        in explain("x", GPU, with_gpu)
    )


def test_a_message_says_how_many_workers_fit() -> None:
    assert helps(CPU, SMALL) == "add nodes, or run the command again with --workers 2"
    assert (
        helps(CPU, FULL)
        == "other programs use too many of these resources, so wait until these programs end, or run the command again "
        "with --workers 1"
    )
    assert (
        helps(CPU, replace(FULL, free={}))
        == "other programs use too many of these resources, so wait until these programs end"
    )


def test_a_message_says_that_no_node_is_large_enough() -> None:
    assert "so add larger nodes, or lower resources.threads" in helps(Asked(1, {"CPU": 16.0}), FULL)
    assert "set resources.device=cpu" in helps(GPU, FULL)
    assert "no node has enough CPUs for one worker" in helps(CPU, Room([], {}, IDLE))


def test_a_message_says_what_the_autoscaler_does() -> None:
    starting = replace(SMALL, autoscaling=RayAutoscaling({"spot": 2, "gpu": 1}))
    assert helps(CPU, starting) == "the autoscaler is starting nodes (1 of type gpu, 2 of type spot), so wait for them"
    failed = replace(SMALL, autoscaling=RayAutoscaling({}, {"spot": "no\n  capacity"}))
    assert helps(CPU, failed) == (
        "the autoscaler could not start a node of type spot (no capacity), so correct this node type; "
        "add nodes, or run the command again with --workers 2"
    )
    too_small = RayAutoscaling({}, {}, [[{"node:1.2.3.4": 0.001}, {"CPU": 2.0}, {"CPU": 2.0}, {"CPU": 2.0}]])
    assert "raise max_workers of the cluster; add nodes" in helps(CPU, replace(SMALL, autoscaling=too_small))
    of_others = RayAutoscaling({}, {}, [[{"CPU": 2.0}]])
    assert "max_workers" not in helps(CPU, replace(SMALL, autoscaling=of_others))


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    found = OutputFolder(tmp_path).sweep("small-123456")
    found.group("abc").path.mkdir(parents=True)
    return found


@pytest.fixture
def cluster() -> dict[str, Room]:
    """The room of the cluster, as value of `room`."""
    return {"room": SMALL}


@pytest.fixture
def watch(folder: SweepFolder, clock: Clock, cluster: dict[str, Room]) -> RoomWatch:
    """A watch of a cluster without room."""
    return RoomWatch(folder.waiting_file, CPU, lambda: True, lambda: cluster["room"], clock)


def test_a_file_says_what_is_lacking_after_some_seconds_and_as_long_as_it_lacks(
    folder: SweepFolder, watch: RoomWatch, clock: Clock, cluster: dict[str, Room]
) -> None:
    watch.update("1 training group has waited")
    clock.now += FIRST_SECONDS - 0.1
    watch.update("1 training group has waited")
    assert waiting_texts(folder) == []
    clock.now += 0.2
    watch.update("1 training group has waited")
    (text,) = waiting_texts(folder)
    assert text.startswith("1 training group has waited for room in the cluster since ")
    cluster["room"] = FULL
    clock.now += 60
    watch.update("1 training group has waited")
    (other,) = waiting_texts(folder)
    assert "other programs use too many of these resources" in other
    assert text.split(":")[:3] == other.split(":")[:3]  # the time at which the wait began
    watch.update(None)
    assert waiting_texts(folder) == []
    clock.now += 60
    watch.update("1 training group has waited")
    assert waiting_texts(folder) == []  # a new wait begins


def test_a_group_that_starts_slowly_in_its_room_does_not_wait_for_room(folder: SweepFolder, clock: Clock) -> None:
    watch = RoomWatch(folder.waiting_file, CPU, lambda: False, lambda: SMALL, clock)
    watch.update("1 training group has waited")
    clock.now += 100
    watch.update("1 training group has waited")
    assert waiting_texts(folder) == []


def test_a_cluster_that_does_not_answer_or_a_full_disk_stops_nothing(
    folder: SweepFolder, clock: Clock, watch: RoomWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent() -> Room:
        raise TimeoutError("no answer")

    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "the disk is full")

    mute = RoomWatch(folder.waiting_file, CPU, lambda: True, silent, clock)
    for one in (mute, watch):
        monkeypatch.setattr(cluster_room, "write_atomically", full)
        one.update("x")
        clock.now += 100
        one.update("x")
    assert waiting_texts(folder) == []


def test_groups_that_wait_are_mentioned_only_if_no_group_runs(
    folder: SweepFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str | None] = []
    monkeypatch.setattr(RoomWatch, "update", lambda self, who: told.append(who))
    monkeypatch.setattr(schedulers, "WATCH_SECONDS", 0.0)
    watch = schedulers.TrialWatch(folder, {"CPU": 1.0}, [SimpleNamespace(bundles=[{}, {"CPU": 1.0}])])
    for states in (["PENDING"], ["PENDING", "PENDING", "TERMINATED"], ["PENDING", "RUNNING"], ["TERMINATED"]):
        watch.look([SimpleNamespace(status=state) for state in states])
    assert told == ["1 training group has waited", "2 training groups have waited", None, None]
    folder.pause_file.touch()
    watch.look([SimpleNamespace(status=state) for state in ("PENDING", "RUNNING")])
    with pytest.raises(KeyboardInterrupt):  # a drained sweep must not wait until there is room
        watch.look([SimpleNamespace(status="PENDING")])


def test_a_watch_and_a_launch_delete_what_a_killed_process_left(folder: SweepFolder, clock: Clock) -> None:
    for file in (folder.waiting_file, folder.group("abc").waiting_file):
        file.write_text("old")
    RoomWatch(folder.group("abc").waiting_file, CPU, lambda: True, lambda: SMALL, clock)
    assert waiting_texts(folder) == ["old"]
    forget_waiting(folder)
    assert waiting_texts(folder) == []


def test_the_log_repeats_a_message_rarely_and_a_new_cause_at_once(
    folder: SweepFolder, clock: Clock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_room.log, "propagate", True)
    caplog.set_level(logging.WARNING, "supsup")
    log = WaitingLog(folder, clock)

    def logged(seconds: float, **texts: str) -> list[str]:
        """Returns what is logged after some seconds in which groups wait for these reasons."""
        forget_waiting(folder)
        for group, text in texts.items():
            folder.group(group).path.mkdir(exist_ok=True)
            folder.group(group).waiting_file.write_text(text)
        clock.now += seconds
        caplog.clear()
        log.update()
        return [record.getMessage() for record in caplog.records]

    assert logged(0) == []
    assert logged(0, abc="3 CPUs are free") == ["3 CPUs are free"]
    assert logged(5, abc="2 CPUs are free") == []
    assert logged(5, abc="2 CPUs are free", other="nodes start") == ["nodes start"]
    assert logged(REPEAT_SECONDS, abc="1 CPUs are free") == ["1 CPUs are free"]
    assert logged(50) == ["after 6 min 0 s, no training group waits for room in the cluster any more"]
    assert logged(5) == []
    assert logged(5, abc="2 CPUs are free") == ["2 CPUs are free"]
