"""Reports for which resources of a Ray cluster training groups wait: in a file for `supsup status`, and in the log."""

from __future__ import annotations

import contextlib
import logging
import re
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import ray

from orchestrator.base.files import write_atomically
from orchestrator.base.library_internals import RayAutoscaling, ray_autoscaling
from orchestrator.base.output_folder import SweepFolder
from orchestrator.base.wording import count, duration, first_line
from orchestrator.coordination.control_files import waiting_texts

FIRST_SECONDS = 8.0
"""The number of seconds that a group must wait before the first message. Ray needs a few seconds to start a group even
if enough resources are free."""

LOOK_SECONDS = 4.0
"""The seconds between two checks of the cluster's resources while a group waits."""

REPEAT_SECONDS = 300.0
"""An unchanged message is logged again after this many seconds."""

_ANSWER_SECONDS = 3.0
"""The longest time, in seconds, to wait for the state of the cluster's autoscaler."""

_LONGEST_REASON = 300
"""The largest number of characters that a message quotes from an error of the cloud provider."""

log = logging.getLogger("supsup")


@dataclass(frozen=True)
class Asked:
    """The resources that a training group asks for: `num_workers` times the resources of `worker`, CPU and perhaps
    GPU."""

    num_workers: int
    worker: Mapping[str, float]

    def fitting(self, resources: Mapping[str, float]) -> int:
        """Returns how many of the workers fit into these resources at once."""
        return int(min(resources.get(name, 0.0) // amount for name, amount in self.worker.items()))


@dataclass(frozen=True)
class Room:
    """The resources of a cluster. `nodes`: the resources of each node.

    `free`: the free resources, summed over all nodes.
    """

    nodes: Sequence[Mapping[str, float]]
    free: Mapping[str, float]
    autoscaling: RayAutoscaling


def look_at_cluster() -> Room:
    """Returns the resources of the cluster to which this process is connected."""
    autoscaling = RayAutoscaling()
    with contextlib.suppress(Exception):  # the message is useful even without the autoscaler's state
        autoscaling = ray_autoscaling(ray.get_runtime_context().gcs_address, _ANSWER_SECONDS)
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return Room(nodes, ray.available_resources(), autoscaling)


def is_pending(bundles: Sequence[Mapping[str, float]]) -> bool:
    """Returns whether a placement group with exactly these bundles waits for free resources in the cluster."""
    groups = ray.util.placement_group_table().values()
    return any(one["state"] == "PENDING" and _same(list(one["bundles"].values()), bundles) for one in groups)


def lacks_bundles() -> bool:
    """Returns whether the placement group of this process has lost a node and waits for resources on other nodes."""
    return str(ray.util.placement_group_table(ray.util.get_current_placement_group())["state"]) != "CREATED"


def _same(bundles: Sequence[Mapping[str, float]], others: Sequence[Mapping[str, float]]) -> bool:
    def sorted_items(found: Sequence[Mapping[str, float]]) -> list[list[tuple[str, float]]]:
        return sorted(sorted(bundle.items()) for bundle in found)

    return sorted_items(bundles) == sorted_items(others)


def explain(who: str, asked: Asked, room: Room) -> str:
    """Returns one line: the resources asked for, the cluster's resources, and what would help. who: the start of the
    line, which says who has waited since when."""
    total = {name: sum(node.get(name, 0.0) for node in room.nodes) for name in asked.worker}
    free = {name: room.free.get(name, 0.0) for name in asked.worker}
    return (
        f"{who}: a group needs {count(asked.num_workers, 'worker')} with {_amounts(asked.worker)} each; the cluster "
        f"has {count(len(room.nodes), 'node')} with {_amounts(total)} (free: {_amounts(free)}); "
        + "; ".join(_help(asked, room))
    )


def _help(asked: Asked, room: Room) -> list[str]:
    """Returns texts that say what the autoscaler does about missing resources, and what the user can do."""
    found = []
    scaling = room.autoscaling
    for name, reason in sorted(scaling.failed.items()):
        why = textwrap.shorten(reason, _LONGEST_REASON, placeholder="…") or "no reason given"
        found.append(f"the autoscaler could not start a node of type {name} ({why}), so correct this node type")
    if scaling.starting:
        nodes = ", ".join(f"{number} of type {name}" for name, number in sorted(scaling.starting.items()))
        return [*found, f"the autoscaler is starting nodes ({nodes}), so wait for them"]
    workers = [dict(asked.worker)] * asked.num_workers
    if any(_same([one for one in group if set(one) == set(asked.worker)], workers) for group in scaling.infeasible):
        found.append("the autoscaler cannot start enough nodes for the workers, so raise max_workers of the cluster")
    fitting = sum(asked.fitting(node) for node in room.nodes)
    free = min(asked.fitting(room.free), asked.num_workers - 1)
    if fitting >= asked.num_workers:
        fewer = f", or run the command again with --workers {free}" if free > 0 else ""
        found.append(f"other programs use too many of these resources, so wait until these programs end{fewer}")
    elif fitting > 0:
        found.append(f"add nodes, or run the command again with --workers {fitting}")
    elif not found:
        large, small = "enough CPUs", "lower resources.threads"
        if "GPU" in asked.worker:
            large, small = "enough CPUs and a GPU", "set resources.device=cpu"
        found.append(f"no node has {large} for one worker, so add larger nodes, or {small}")
    return found


def _amounts(resources: Mapping[str, float]) -> str:
    """Formats resources, such as `8 CPUs and 1 GPU`."""
    return " and ".join(f"{amount:g} {name}{'' if amount == 1 else 's'}" for name, amount in resources.items())


@final
class RoomWatch:
    """Writes a file that says which resources are missing, and deletes the file when they are no longer missing.

    Each file has at most one writing process at a time.
    """

    def __init__(
        self,
        file: Path,
        asked: Asked,
        lacks_room: Callable[[], bool],
        look: Callable[[], Room] = look_at_cluster,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """lacks_room: a function that returns whether Ray has too few free resources for the workers.

        If `lacks_room` returns False, the workers are only slow to start. look: a function that returns the resources
        of the cluster. clock: a function that returns the time of a monotonic clock, in seconds.
        """
        self._file = file
        self._asked = asked
        self._lacks_room = lacks_room
        self._look = look
        self._clock = clock
        self._look_at: float | None = None
        self._began = ""
        self._text = "unknown"  # a killed process may have left a file
        self._write("")

    def update(self, who: str | None) -> None:
        """Writes or deletes the file.

        Call this method often. who: such as `2 training groups have waited`; None if no group waits. If the cluster
        does not answer, the file does not change, and this method raises no error.
        """
        if who is None:
            self._look_at = None
            self._write("")
            return
        now = self._clock()
        if self._look_at is None:
            self._look_at, self._began = now + FIRST_SECONDS, time.strftime("%H:%M:%S")
        if now < self._look_at:
            return
        self._look_at = now + LOOK_SECONDS
        try:
            lacking = self._lacks_room()
            waits = f"{who} for room in the cluster since {self._began}"
            text = explain(waits, self._asked, self._look()) if lacking else ""
        except Exception as error:  # noqa: BLE001 - Ray raises anything while a cluster ends
            log.debug("the cluster does not say how much room it has (%s)", first_line(error))
            return
        self._write(text)

    def _write(self, text: str) -> None:
        """Writes the file, or deletes it if `text` is empty. Raises no error if the file cannot be written."""
        if text == self._text:
            return
        with contextlib.suppress(OSError):  # a sweep must not fail because of this message
            if text:
                write_atomically(self._file, text.encode(errors="replace"))
            else:
                self._file.unlink(missing_ok=True)
            self._text = text


@final
class WaitingLog:
    """Logs the texts of a sweep's waiting files: a new text at once, and an unchanged text every REPEAT_SECONDS."""

    def __init__(self, folder: SweepFolder, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._clock = clock
        self._began: float | None = None
        self._logged: dict[str, float] = {}

    def update(self) -> None:
        """Logs the texts as warnings, which are also printed.

        When no group waits any more, logs how long the wait took. Texts that differ only in numbers count as unchanged,
        because the free CPUs of a shared cluster change often.
        """
        now, texts = self._clock(), waiting_texts(self._folder)
        if not texts and self._began is not None:
            log.warning(
                "after %s, no training group waits for room in the cluster any more", duration(now - self._began)
            )
            self._began = None
            self._logged.clear()
        for text in texts:
            self._began = now if self._began is None else self._began
            kind = re.sub(r"\d+", "", text)
            if now - self._logged.get(kind, -REPEAT_SECONDS) >= REPEAT_SECONDS:
                log.warning("%s", text)
                self._logged[kind] = now
