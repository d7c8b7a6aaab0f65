"""The journal of a training group: it writes the group's ledger and snapshots, and updates the group's state."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import final

from orchestrator.base.wording import as_typed
from orchestrator.coordination.coordinator import StalledJob
from orchestrator.coordination.messages import Failed, Lost, Result
from orchestrator.coordination.settings import GroupSettings
from orchestrator.records.artifact_store import ArtifactStore
from orchestrator.records.group_state import GroupState, LaunchStatus
from orchestrator.records.ledgers.ledger import BehindError, Entry, FencedError, open_ledger
from orchestrator.records.ledgers.ledger_file import snapshot_path
from orchestrator.records.ledgers.snapshots import UPLOAD_SECONDS, SnapshotId, Snapshots, SnapshotUploader
from orchestrator.records.machine_kind import MachineKind
from orchestrator.records.object_storage import Storage
from orchestrator.records.rows import (
    ArtifactLost,
    Event,
    GroupPlanned,
    GroupStopped,
    JobFailed,
    JobRetried,
    JobStalled,
    LaunchEnded,
)
from supsup_core.errors import CorruptError

MAX_RETRIES = 3
"""A job fails when more than this number of workers have died during it. Workers that died because their node died are
not counted."""

SNAPSHOT_SECONDS = 60.0
"""Without a storage, the shortest time between two snapshots, in seconds. If snapshots are slow, the time is longer."""

_SNAPSHOT_SHARE = 100
"""Taking snapshots uses at most 1/_SNAPSHOT_SHARE of the coordinator's time."""


@final
class GroupJournal:
    """Writes a group's ledger and snapshots, and keeps the group's `state` up to date.

    `store`: trained tasks and evaluations. `masks`: the group's mask versions, in scenario NNs. `is_fenced`: whether
    another process has taken over the group. If `is_fenced` is True, no more jobs may be assigned.
    """

    def __init__(self, settings: GroupSettings, remedy: Callable[[bool], str]) -> None:
        """Opens the ledger, restores the state, and records the plan unless this launch has already recorded it.

        remedy: a function that returns a message that says how a corrupt ledger was repaired. The argument of `remedy`
        is whether a snapshot replaced the ledger. Raises BehindError if the storage holds a newer snapshot than the
        local ledger. Raises CorruptError if the ledger of a fork has lost the state from which the fork started.
        """
        self.group = settings.group
        self.store, self.masks = settings.open_store(), settings.open_masks()
        self.is_fenced = False
        self.dropped: list[str] = []
        """Keys of the mask versions that were deleted from the output since the last upload of a snapshot began."""
        self.machines: set[MachineKind] = set()
        """In scenario NNs, the kinds of the machines that decided or trained since the last commit of rounds."""
        self._settings = settings
        self._uploader, epoch = self._prepare_uploads()
        path = settings.folder.ledger
        if settings.origin is not None and not path.exists() and not snapshot_path(path).exists():
            raise CorruptError(_lost_start(settings, None))  # before an empty ledger is written
        self._writer, rows, aside = open_ledger(path, epoch)
        self._snapshot_path = snapshot_path(path)
        self._snapshot_every = settings.storage.snapshot_every if settings.storage else SNAPSHOT_SECONDS
        self._last_snapshot, self._snapshot_cost = time.monotonic(), 0.0
        self.state = GroupState().apply(rows)
        if settings.origin is not None and self.state.forked is None:
            self._writer.close()
            raise CorruptError(_lost_start(settings, aside))
        if not settings.continues_launch or self.state.plan is None:
            self.record(GroupPlanned(self.group, settings.environment))
        if aside is not None:
            self.record(ArtifactLost("", str(aside), remedy(bool(rows))))
        if self._uploader is not None:
            self.take_snapshot_if_due(now=True)  # fences off a process that still runs this sweep on another machine

    def _prepare_uploads(self) -> tuple[SnapshotUploader | None, int]:
        """Returns the uploader of snapshots, and the highest epoch among the snapshots in the storage.

        Returns (None, 0) without a storage. Raises BehindError if the storage holds a newer snapshot than the local
        ledger.
        """
        if self._settings.storage is None:
            return None, 0
        path, url = self._settings.folder.ledger, self._settings.storage.group
        stored = Snapshots(Storage(url))
        if stored.are_ahead_of(path, self._settings.storage.output_id):
            raise BehindError(
                f"{path}: another process has taken over this training group, and has stored a newer ledger in the "
                "storage; run `supsup resume`, which fetches the newer ledger first"
            )
        uploader = SnapshotUploader(Snapshots(Storage(url, UPLOAD_SECONDS)), self.masks)
        return uploader, max((snapshot.epoch for snapshot in stored.ids()), default=0)

    def record(self, event: Event) -> None:
        """Commits one event (see `commit`)."""
        self.commit([Entry(event)])

    def commit(self, entries: Iterable[Entry]) -> None:
        """Commits events to the ledger in one transaction, and applies them to the state.

        Raises FencedError if another writer has taken over the ledger.
        """
        self.state.apply(self._writer.commit(entries))

    def record_results(self, results: Sequence[Result]) -> None:
        """Records results, except those of shards and evaluations whose result is already in the ledger."""
        for result in results:
            if result.key not in self.state.trained and result.key not in self.state.evaluated:
                self.record(result)

    def record_failure(self, reply: Failed, what: str) -> None:
        """Records that a job failed and is not retried. what: the job in words."""
        self.record(JobFailed(reply.key, what, reply.error, reply.traceback))

    def record_death(self, reply: Lost, what: str) -> None:
        """Records that a worker died during a job.

        Also records that the job failed, if more than MAX_RETRIES workers have died during the job. what: the job in
        words.
        """
        self.record(JobRetried(reply.key, reply.reason, reply.node_lost))
        deaths = self.state.retried[reply.key]
        if deaths > MAX_RETRIES:
            self.record(JobFailed(reply.key, what, f"{deaths} workers died during this job: {reply.reason}", ""))

    def record_stalled(self, stalled: StalledJob, what: str) -> None:
        """Records that a job has stalled. what: the job in words."""
        self.record(JobStalled(stalled.key, what, stalled.worker, stalled.seconds, stalled.usual_seconds))

    def record_stop(self, diverged: str | None = None) -> None:
        """Records that the group is stopped, unless the ledger already records a stop. diverged: the error, if the
        training loss became NaN or infinite."""
        if self.state.stopped is None:
            last = max((num_learned for _, num_learned in self.state.points), default=0)
            self.record(GroupStopped(last, diverged))

    def set_aside(self, store: ArtifactStore, key: str) -> Path | None:
        """Quarantines an artifact that was reported as missing or corrupt. Returns the new path of its file.

        Returns the usual path of the file if the artifact is missing. Returns None if the artifact is intact, because
        another process has stored it again.
        """
        if not store.has(key):
            return store.path(key)
        with contextlib.suppress(CorruptError, FileNotFoundError):
            store.verify(key)
            return None
        with contextlib.suppress(FileNotFoundError):
            return store.quarantine(key)
        return store.path(key)

    def take_snapshot_if_due(self, now: bool = False) -> None:
        """Takes a snapshot of the ledger if the last snapshot is old enough, or if `now` is true.

        With a storage, uploads the snapshot in the background, and takes no snapshot while an upload is in progress. If
        another process has taken over the group, sets `is_fenced` instead, and creates the sweep's pause file, so that
        this process stops the sweep.
        """
        try:
            busy = self._uploader is not None and self._uploader.busy
        except FencedError as error:
            self.is_fenced = True
            self._uploader = None
            self._settings.folder.sweep.pause_file.write_text(str(error))
            return
        wait = max(self._snapshot_every, _SNAPSHOT_SHARE * self._snapshot_cost)
        if busy or not (now or time.monotonic() - self._last_snapshot > wait):
            return
        started = time.perf_counter()
        self._writer.snapshot()
        if self._uploader is not None and self._settings.storage is not None:
            dropped, self.dropped = self.dropped, []
            snapshot = SnapshotId(self._writer.epoch, self._settings.storage.output_id)
            self._uploader.start(snapshot, self._snapshot_path.read_bytes(), dropped)
        self._snapshot_cost = time.perf_counter() - started
        self._last_snapshot = time.monotonic()

    def take_snapshot_after_reply(self) -> None:
        """Takes a snapshot if a snapshot is due. Does nothing without a storage.

        Without a storage, only the coordinator of scenario NNs takes snapshots, after its commits.
        """
        if self._uploader is not None:
            self.take_snapshot_if_due()

    def judged(self) -> list[tuple[int, float]]:
        """Returns (tasks learned, accuracy) of each completed evaluation point of the group's first run, in the order
        of completion."""
        first = self.group.runs[0].run_id
        events = [row.event for (run_id, _), row in self.state.points.items() if run_id == first]
        return [(event.num_learned, event.metrics["accuracy"]) for event in events]

    def end(self, paused: bool) -> LaunchStatus:
        """Closes the ledger, and returns how the launch ended. paused: whether the group was paused.

        Before closing, records how the launch ended, except for `interrupted`, and takes a snapshot. If the sweep has a
        storage, uploads this last snapshot.
        """
        status: LaunchStatus
        if self.state.failed:
            status = "failed"
        elif self.state.stopped is not None or (self.state.cancelled and not paused):
            status = "stopped"
        else:
            status = "interrupted" if paused else "done"
        if status != "interrupted":
            self.record(LaunchEnded(status))
        if self._uploader is not None:
            self._uploader.wait()
        self.take_snapshot_if_due(now=True)
        self.close()
        return status

    def close(self) -> None:
        """Waits for the snapshot upload in progress, at most CLOSING_SECONDS, and closes the ledger."""
        if self._uploader is not None:
            self._uploader.close()
        self._writer.close()


def _lost_start(settings: GroupSettings, aside: Path | None) -> str:
    """Returns the message about a fork's ledger that lacks the state from which the fork started."""
    folder = settings.folder
    kept = f" (the damaged ledger is kept as {as_typed(aside)})" if aside is not None else ""
    elsewhere = ""
    if settings.storage is not None:
        elsewhere = ". If another machine has written this fork, run `supsup resume` there, which stores the ledger"
    return (
        f"{as_typed(folder.ledger)}: the ledger of this fork lacks the state of {settings.origin} from which the fork "
        f"starts, and there is no intact snapshot{kept}; move {as_typed(folder.sweep.path)} to another place, and "
        f"repeat the `supsup fork` command{elsewhere}"
    )
