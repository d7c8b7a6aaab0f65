"""The output of a history: what it must hold, and the checks after each step."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import NamedTuple

from orchestrator.base.output_folder import GroupFolder, OutputFolder, SweepFolder
from orchestrator.records.group_state import GroupState
from orchestrator.records.ledgers.ledger import LedgerReader
from orchestrator.records.rows import AnyRow
from orchestrator.sweeps.sweep_record import read_record
from supsup_core.errors import SupSupError
from tests.chaos.processes import Processes
from tests.chaos.results import assert_part_of, mlflow_points
from tests.chaos.twin import Twin
from tests.outputs import artifacts, trained


class _Stored(NamedTuple):
    """An artifact's SHA-256, and what changes when its file is written again."""

    sha256: str
    written: tuple[int, int]


class World:
    """An output, its twin, and what the history has done to it on purpose.

    `damaged`: paths, relative to the output, of files that were damaged and not repaired yet. `retried`: how often each
    key may be trained again. `spoiled`: the keys of evaluations whose artifacts were damaged.
    """

    def __init__(self, processes: Processes, twin: Twin, output: Path) -> None:
        self.processes = processes
        self.twin = twin
        self.output = output
        self.damaged: set[Path] = set()
        self.retried: Counter[str] = Counter()
        self.spoiled: set[str] = set()
        self._stored: dict[str, _Stored] = {}
        self._rows: dict[Path, list[AnyRow]] = {}

    @property
    def folder(self) -> OutputFolder:
        return OutputFolder(self.output)

    def sweep(self, name: str) -> SweepFolder:
        """Returns the folder of `tasks`, `nns` or `fork`."""
        return self.folder.sweep(self.twin.ids[name])

    def begun(self) -> list[str]:
        """Returns the sweeps that have a record."""
        return [name for name in self.twin.ids if self.sweep(name).sweep_file.exists()]

    def is_evaluated(self) -> bool:
        """Returns whether `supsup evaluate` has extended `tasks`."""
        return "tasks" in self.begun() and bool(read_record(self.sweep("tasks")).extra_inferences)

    def state(self, name: str) -> GroupState:
        """Returns the state of a sweep's training group. A ledger that cannot be read has no rows."""
        states = [GroupState().apply(self._readable(group)) for group in self.sweep(name).groups()]
        return states[0] if states else GroupState()

    def _readable(self, group: GroupFolder) -> list[AnyRow]:
        try:
            with LedgerReader(group.ledger) as reader:
                return reader.rows()
        except SupSupError:
            assert group.ledger.relative_to(self.output) in self.damaged
            return []

    def needed(self) -> set[str]:
        """Returns the keys of the artifacts that the sweeps of the output need."""
        parts = [*self.begun(), *(["evaluate"] if self.is_evaluated() else [])]
        return {key for part in parts for key in self.twin.keys[part]}

    def trained_keys(self) -> set[str]:
        """Returns the keys of the tasks that the ledgers record as trained."""
        return {key for name in self.begun() for key in self.state(name).trained}

    def forget(self, name: str) -> None:
        """Notes that a sweep was deleted."""
        self._rows = {path: rows for path, rows in self._rows.items() if self.twin.ids[name] not in path.parts}
        self.damaged = {path for path in self.damaged if self.twin.ids[name] not in path.parts}

    def moved(self, output: Path) -> None:
        """Notes that the history continues in another output, which has the same files."""
        self.output = output
        self._stored = self._store()

    def check(self) -> None:
        """Checks everything that must hold when no command runs."""
        if not self.folder.exists:
            return  # a command was killed before it had made the output
        self._check_damage()
        self._check_store()
        self._check_rows()
        times = Counter(row["key"] for row in trained(self.output))
        assert not {key: n for key, n in times.items() if n > 1 + self.retried[key]}, "trained twice"
        points = mlflow_points(self.output, killed=True)[0]
        known = {uid: its for uid, its in points.items() if uid.partition("/")[0] in self.twin.ids.values()}
        assert_part_of(known, self.twin.results.points)  # the runs of a deleted sweep stay in MLflow

    def _store(self) -> dict[str, _Stored]:
        found = {}
        for name, sha256 in artifacts(self.output).items():
            stat = self.folder.store.file(Path(name).stem).stat()
            found[Path(name).stem] = _Stored(sha256, (stat.st_ino, stat.st_mtime_ns))
        return found

    def _is_damaged(self, key: str) -> bool:
        return self.folder.store.file(key).relative_to(self.output) in self.damaged

    def _check_store(self) -> None:
        """No artifact differs from the twin's, and none that is needed was lost or written again."""
        now, needed = self._store(), self.needed()
        for key, (sha256, _) in now.items():
            known = self.twin.results.artifacts.get(f"{key}.safetensors")
            if known is None:
                assert key not in needed  # an artifact of a deleted sweep
            else:
                assert sha256 == known or self._is_damaged(key), key
        for key, before in self._stored.items():
            if key in needed and not self.retried[key]:
                assert key in now or self._is_damaged(key), f"{key} was lost"
                assert key not in now or now[key].written == before.written, f"{key} was written again"
        self._stored = now

    def _check_rows(self) -> None:
        """A committed row stays committed."""
        for path in self.damaged:
            self._rows.pop(path, None)
        for folder in self.folder.sweeps():
            for group in folder.groups():
                path = group.ledger.relative_to(self.output)
                if path in self.damaged:
                    continue
                rows, before = self._readable(group), self._rows.get(path, [])
                assert rows[: len(before)] == before, f"{path}: committed rows are lost"
                self._rows[path] = rows

    def _check_damage(self) -> None:
        """`supsup fsck` reports the damaged files and no others. Files that it no longer reports are whole again."""
        ended = self.processes.run("fsck", f"output={self.output}")
        assert "Traceback" not in ended.err, ended.err
        assert ended.code == 0 or "fault" in ended.out, ended.out + ended.err
        reported = set()
        for line in ended.out.splitlines():
            path, _, reason = line.partition(": ")
            if reason and not line.startswith("verified") and not reason.startswith("its last launch was interrupted"):
                place = (self.processes.folder / path).relative_to(self.output)
                reported.add(place)
                began = bool(self._rows.get(place)) or "is missing, or has no rows" not in reason
                # a lost task is missing until it is trained again; so is a task that `supsup retry` moved aside
                is_lost = place.stem in self.retried and reason.startswith("missing;")
                # the snapshot of a damaged ledger does not know that an artifact was lost since
                is_older = place.stem in self.retried and any(path.name == "ledger.sqlite" for path in self.damaged)
                known = place in self.damaged or not began or is_lost or is_older
                assert known, f"fsck found unexpected damage: {line}"
        assert (ended.code == 0) == (not reported), ended.out + ended.err
        self.damaged &= reported
