"""What an output of sweeps holds, in a form in which two outputs with the same results are equal."""

from __future__ import annotations

import csv
import sqlite3
from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.base.output_folder import OutputFolder
from orchestrator.sweeps.lookup import read_state
from tests.outputs import TIMINGS, artifacts, nns_science

Points = Counter[tuple[str, int, float]]


@dataclass(frozen=True)
class Results:
    """The results of all sweeps of an output.

    `artifacts`: SHA-256 by file name. `tables`: the rows of each table of a report, by path. `points`: how often each
    MLflow point was logged, by the uid of the run; without timings. `statuses`: of the MLflow runs, by uid. `science`:
    see `nns_science`, by the id of the training group.
    """

    artifacts: dict[str, str]
    tables: dict[str, list[list[str]]]
    points: dict[str, Points]
    statuses: dict[str, str]
    science: dict[str, dict[str, Any]]

    @classmethod
    def of(cls, output: Path) -> Results:
        tables = {str(path.relative_to(output)): _table(path) for path in output.glob("sweeps/*/report/*.csv")}
        groups = [group for folder in OutputFolder(output).sweeps() for group in folder.groups()]
        science = {group.group_id: nns_science(group.ledger) for group in groups if read_state(group).group.is_nns}
        points, statuses = mlflow_points(output)
        return cls(artifacts(output), tables, points, statuses, science)

    def only(self, sweep_id: str, groups: Collection[str], keys: Collection[str]) -> Results:
        """Returns the results of one sweep. groups, keys: the ids of its training groups, the keys of its artifacts."""
        return Results(
            {name: sha256 for name, sha256 in self.artifacts.items() if Path(name).stem in keys},
            {name: table for name, table in self.tables.items() if sweep_id in Path(name).parts},
            {uid: points for uid, points in self.points.items() if uid.startswith(f"{sweep_id}/")},
            {uid: status for uid, status in self.statuses.items() if uid.startswith(f"{sweep_id}/")},
            {group: science for group, science in self.science.items() if group in groups},
        )


def _table(path: Path) -> list[list[str]]:
    """Returns the rows of a table of a report, sorted, without the columns that hold times."""
    header, *rows = csv.reader(path.read_text().splitlines())
    kept = [number for number, name in enumerate(header) if name not in ("time", "seconds", "latency")]
    return sorted([row[number] for number in kept] for row in [header, *rows])


def mlflow_points(output: Path, killed: bool = False) -> tuple[dict[str, Points], dict[str, str]]:
    """Returns `Results.points` and `Results.statuses`. Fails if two runs have the same uid.

    Ignores deleted runs: a run that contradicts its ledger, which has lost rows, is deleted and written anew. killed:
    also ignores a run that another run replaces, because the process may have been killed just before the deletion.
    """
    database = OutputFolder(output).mlflow.database
    if not database.exists():
        return {}, {}
    with closing(sqlite3.connect(database, timeout=30)) as db:
        statuses = dict(db.execute("SELECT run_uuid, status FROM runs WHERE lifecycle_stage = 'active'").fetchall())
        tags = db.execute("SELECT run_uuid, value FROM tags WHERE key = 'supsup.uid'").fetchall()
        replaces = db.execute("SELECT run_uuid, value FROM tags WHERE key = 'supsup.replaces'").fetchall()
        metrics = db.execute("SELECT run_uuid, key, step, value FROM metrics").fetchall()
    uids = {run: uid for run, uid in tags if run in statuses}
    for new, old in replaces if killed else ():
        if new in uids and uids.get(old) == uids[new]:
            del uids[old]
    doubled = [uid for uid, times in Counter(uids.values()).items() if times > 1]
    assert not doubled, f"several MLflow runs for {doubled}"
    points: dict[str, Points] = {uid: Counter() for uid in uids.values()}
    for run, key, step, value in metrics:
        if run in uids and key not in TIMINGS and not key.startswith("system/"):
            points[uids[run]][key, step, value] += 1
    return points, {uids[run]: status for run, status in statuses.items() if run in uids}


def assert_part_of(found: dict[str, Points], wanted: dict[str, Points]) -> None:
    """Asserts that every point was logged once, and that it is one of the wanted points."""
    for uid, points in found.items():
        assert not [point for point, times in points.items() if times > 1], f"{uid}: points were logged twice"
        assert points <= wanted[uid], f"{uid}: {points - wanted[uid]}"


def assert_same(found: Results, wanted: Results, spoiled: Collection[str] = ()) -> None:
    """Asserts that two outputs have the same results.

    spoiled: the keys of evaluations whose artifacts were damaged. They may be missing: the ledger holds their counts.

    The mean over seeds in the run of a whole sweep is named by the runs that the sweep has at that time. A sweep that
    `supsup evaluate` extended therefore has means with names of both times, if both were reached.
    """
    artifacts = {
        name: sha256
        for name, sha256 in wanted.artifacts.items()
        if name in found.artifacts or Path(name).stem not in spoiled
    }
    assert not differences(found.artifacts, artifacts)
    assert not differences(found.tables, wanted.tables)
    assert_part_of(found.points, wanted.points)
    alone = {uid: points for uid, points in wanted.points.items() if "/sweep/" not in uid}
    assert not differences({uid: found.points.get(uid) for uid in alone}, alone)
    assert not differences(found.statuses, wanted.statuses)
    assert not differences(found.science, wanted.science)


def differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Returns a text for each key whose values differ."""
    return [
        f"{key}: {str(found.get(key))[:500]} instead of {str(wanted.get(key))[:500]}"
        for key in sorted(found.keys() | wanted.keys())
        if key not in found or key not in wanted or found[key] != wanted[key]
    ]
