"""Corrupts one file of an output or its storage, runs a command, and judges whether a wrong result was reported.

A cell is one combination of a sample (an output, maybe with a storage), a file, a kind of corruption and a command.
"""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.chaos.corruption_samples import SWEEPS, Outcome, Sample, run

CHEAP = {"open": 8, "status": 8, "gc": 8, "fsck": 2, "resume": 1, "report": 1, "evaluate": 1, "export": 1}
"""How often each command is drawn when cells must be quick."""

CORRUPTIONS = ("bit", "cut", "emptied", "deleted", "swapped", "older", "other sweep's", "mode 000")


@dataclass(frozen=True)
class Cell:
    """One cell of the matrix. `name`: the corrupted file. `sweep`: the sweep that the command is run on."""

    kind: str
    name: Path
    corruption: str
    command: str
    sweep: str


Verdict = Literal["found", "harmless", "silent", "lost"]


def cells(sample: Sample, seed: int, weights: Mapping[str, int]) -> Iterator[Cell]:
    """Draws cells without end. Each kind of file is equally frequent. weights: the frequency of each command."""
    rng = random.Random(seed)
    files = sample.files()
    while True:
        kind = rng.choice(sorted(files))
        name = rng.choice(files[kind])
        corruption = rng.choice(CORRUPTIONS)
        owner = re.search(r"sweeps/([a-z_]+)-", name.as_posix())
        sweep = owner[1] if owner else rng.choice(sorted(SWEEPS))
        cell = Cell(kind, name, corruption, rng.choices([*weights], [*weights.values()])[0], sweep)
        if _other(sample, files, cell, rng) is not None:
            yield cell


def _other(sample: Sample, files: dict[str, list[Path]], cell: Cell, rng: random.Random) -> Path | None:
    """Returns the file with which the cell's file is swapped or replaced; None if there is none, which excludes the
    cell. Returns the file itself if the corruption needs no other file."""
    whole = sample.folder / cell.name
    if cell.corruption == "older":
        older = sample.older / cell.name
        return older if older.exists() and older.read_bytes() != whole.read_bytes() else None
    if cell.corruption not in ("swapped", "other sweep's"):
        return whole
    others = [sample.folder / name for name in files[cell.kind] if name != cell.name]
    if cell.corruption == "other sweep's" and "SWEEP" in cell.kind:
        mine = cell.name.parts[:3]
        others = [path for path in others if path.relative_to(sample.folder).parts[:3] != mine]
    others = [path for path in others if path.read_bytes() != whole.read_bytes()]
    return rng.choice(others) if others else None


def corrupt(sample: Sample, copy: Path, cell: Cell, rng: random.Random) -> None:
    """Corrupts the cell's file in a copy of the sample."""
    path = copy / cell.name
    content = bytearray(path.read_bytes())
    match cell.corruption:
        case "bit":
            if content:
                content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
            path.write_bytes(bytes(content))
        case "cut":
            path.write_bytes(bytes(content[: rng.randrange(len(content) or 1)]))
        case "emptied":
            path.write_bytes(b"")
        case "deleted":
            path.unlink()
        case "mode 000":
            path.chmod(0)
        case "older":
            shutil.copyfile(sample.older / cell.name, path)
        case _:
            other = _other(sample, sample.files(), cell, rng)
            assert other is not None
            its = copy / other.relative_to(sample.folder)
            theirs = its.read_bytes()
            if cell.corruption == "swapped":
                its.write_bytes(bytes(content))
            path.write_bytes(theirs)


class Matrix:
    """Runs the cells of a sample, each in a fresh copy, and collects the verdicts."""

    def __init__(self, sample: Sample, seed: int, weights: Mapping[str, int]) -> None:
        self._sample, self._seed = sample, seed
        self.verdicts: dict[Verdict, list[str]] = {"found": [], "harmless": [], "silent": [], "lost": []}
        self._cells = cells(sample, seed, weights)
        self._number = 0

    def run(self, count: int) -> None:
        """Runs the next `count` cells."""
        for _ in range(count):
            cell = next(self._cells)
            self._number += 1
            verdict, why = self._judge(cell)
            self.verdicts[verdict].append(
                f"seed {self._seed}, cell {self._number}: {cell.name} {cell.corruption}, then {cell.command} "
                f"{cell.sweep}: {why}"
            )

    def _judge(self, cell: Cell) -> tuple[Verdict, str]:
        expected = self._baseline(cell.command, cell.sweep)
        copy = self._copied(cell)
        needed = _needed(copy)
        outcome = run(self._sample, cell.command, cell.sweep)
        gone = [name for name in needed if not (copy / name).exists() and not _kept_aside(copy, name)]
        if gone:
            return "lost", f"{gone[0]} is gone"
        if outcome.code < 0 or outcome.code == 70 or "Traceback" in "".join(outcome.said):
            return "silent", f"it ended with code {outcome.code}: {sorted(outcome.said)[-3:]}"
        if outcome.code != expected.code or outcome.said - expected.said:
            return "found", f"code {outcome.code}: {sorted(outcome.said - expected.said)}"
        if outcome.result != expected.result:
            return "silent", f"{_difference(outcome.result, expected.result)}"
        if cell.command == "fsck" and cell.corruption != "mode 000":
            return self._check_intact(copy, cell)
        return "harmless", ""

    def _check_intact(self, copy: Path, cell: Cell) -> tuple[Verdict, str]:
        """After fsck has found no fault, a resume must end as in the intact sample, and report no fault either."""
        if cell.kind.startswith("runs/mlflow"):
            return "harmless", "fsck does not read MLflow"
        outcome, expected = run(self._sample, "resume", cell.sweep), self._baseline("resume", cell.sweep)
        if outcome.code != expected.code or outcome.said - expected.said:
            return "silent", f"but resume says: code {outcome.code}: {sorted(outcome.said - expected.said)}"
        if outcome.result != expected.result:
            return "silent", f"but after resume: {_difference(outcome.result, expected.result)}"
        return "harmless", ""

    def _copied(self, cell: Cell | None) -> Path:
        copy = self._sample.processes.folder
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self._sample.folder, copy)
        if cell is not None:
            corrupt(self._sample, copy, cell, random.Random(f"{self._seed} {self._number}"))
        return copy

    def _baseline(self, name: str, sweep: str) -> Outcome:
        """Returns the outcome of a command in the intact sample."""
        if (name, sweep) not in self._sample.baselines:
            self._copied(None)
            self._sample.baselines[name, sweep] = run(self._sample, name, sweep)
        return self._sample.baselines[name, sweep]


def _needed(copy: Path) -> list[Path]:
    """Returns the trained masks of a sample, relative to its folder. No command may delete one."""
    found = [*copy.glob("*/store/??/*.safetensors"), *copy.glob("*/sweeps/*/groups/*/masks/??/*.safetensors")]
    return [path.relative_to(copy) for path in found]


def _kept_aside(copy: Path, name: Path) -> bool:
    """Returns whether a damaged artifact was moved aside, or an NNs run has replaced its mask version."""
    aside = list((copy / name).parents[1].glob(f"corrupt/{name.stem}.*"))
    return bool(aside) or "masks" in name.parts


def _difference(one: object, two: object) -> str:
    """Returns where two results differ, in a few words."""
    if isinstance(one, dict) and isinstance(two, dict):
        for key in sorted({*one, *two}, key=str):
            if one.get(key) != two.get(key):
                return f"{key}: {_difference(one.get(key), two.get(key))}"
    return f"{str(one)[:200]} instead of {str(two)[:200]}"
