"""Corrupts one file of an output or its storage, runs a command, and judges whether a wrong result was reported.

A cell is one combination of a world (an output, maybe with a storage), a file, a kind of corruption and a command.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import random
import re
import shutil
import signal
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from matplotlib.figure import Figure

from orchestrator.base.failpoints import set_failpoint
from orchestrator.base.output_folder import OutputFolder
from orchestrator.records.group_state import GroupState
from orchestrator.records.ledger import LedgerReader
from orchestrator.tracking import mlflow_store
from supsup_core.errors import CorruptError
from tests.conftest import SMALL
from tests.forked import Answer, call, command, drop_file_privileges
from tests.outputs import artifacts, nns_science

CHEAP = {"open": 8, "status": 8, "gc": 8, "fsck": 2, "resume": 1, "report": 1, "evaluate": 1, "export": 1}
"""How often each command is drawn when cells must be quick."""

CORRUPTIONS = ("bit", "cut", "emptied", "deleted", "swapped", "older", "other sweep's", "mode 000")

SWEEPS: dict[str, dict[str, Any]] = {
    "tasks": {
        "benchmark": {**SMALL["benchmark"], "num_tasks": 2},
        "training": {"num_batches": 10},
        "evaluation": {"at": [1, 2]},
    },
    "nns": {
        "scenario": "NNs",
        "benchmark": {"name": "permuted", "base": "digits", "num_tasks": 2},
        "training": {"num_batches": 40, "learning_rate": 3e-3},
        "stream": {"segment_batches": 20},
        "evaluation": {"at": [1, 2]},
        "inference": {"strict_images": 10},
        "commit_every": 0.001,
    },
}
SWEEPS |= {
    f"other_{name}": {**node, "training": {**node["training"], "learning_rate": 1e-3}} for name, node in SWEEPS.items()
}


@dataclass(frozen=True)
class World:
    """A folder with sweep files, an output `runs` and maybe a storage `stored`.

    `older`: the same folder at an earlier time. `here`: where commands run on copies of the folder, because an output
    contains the absolute path of its storage.
    """

    folder: Path
    older: Path
    here: Path
    baselines: dict[tuple[str, str], Outcome] = field(default_factory=dict)

    def files(self) -> dict[str, list[Path]]:
        """Returns the files that a cell may corrupt, relative to the folder, by kind."""
        found = defaultdict(list)
        for path in sorted(self.folder.rglob("*")):
            name = path.relative_to(self.folder)
            if path.is_file() and name.parts[0] in ("runs", "stored") and path.name not in ("lock", "holder"):
                found[kind_of(name)].append(name)
        return dict(found)


def kind_of(name: Path) -> str:
    """Returns the kind of a file, which is its name without ids. name: relative to a world's folder."""
    text = re.sub(r"[0-9a-f]{32,}", "ID", name.as_posix())
    text = re.sub(r"sweeps/[a-z_]+-[0-9a-f]+", "sweeps/SWEEP", text)
    text = re.sub(r"groups/[0-9a-f]+", "groups/GROUP", text)
    text = re.sub(r"ledger-\d+-[0-9a-f]+", "ledger-ID", text)
    text = re.sub(r"/[0-9a-f]{2}/ID", "/KEY", text)
    return re.sub(r"(report|artifacts)/.*", r"\1/FILE", text)


@dataclass(frozen=True)
class Outcome:
    """What a command did. `result`: everything that the user takes for true. `said`: lines of warnings and errors."""

    code: int
    result: object
    said: frozenset[str]


@dataclass(frozen=True)
class Cell:
    """One cell of the matrix. `name`: the corrupted file. `sweep`: the sweep that the command is run on."""

    kind: str
    name: Path
    corruption: str
    command: str
    sweep: str


Verdict = Literal["found", "harmless", "silent", "lost"]


def build(folder: Path, storage: bool) -> tuple[World, World]:
    """Builds two worlds: an output whose sweeps were killed, and the same output after they were resumed."""
    here, early, killed, done = (folder / name for name in ("here", "early", "killed", "done"))
    here.mkdir(parents=True)
    mlflow_store.create_database(OutputFolder(here / "runs").mlflow)
    for name, node in SWEEPS.items():
        content = {**SMALL, **node, "name": name, "snapshot_every": 0.001}
        (here / f"{name}.yaml").write_text(yaml.safe_dump(content))
    extra = [f"storage=file://{here}/stored"] if storage else []
    for name in SWEEPS:
        _killed(here, 4, "sweep", f"{name}.yaml", "--local", *extra)
    shutil.copytree(here, early)
    for name in SWEEPS:
        _killed(here, 5, "resume", name, "--local")
    shutil.copytree(here, killed)
    for name in SWEEPS:
        answer = command(here, "resume", name, "--local")
        assert answer.code == 0, answer
    _prune(here)
    shutil.copytree(here, done)
    return World(killed, early, here), World(done, killed, here)


def _prune(folder: Path) -> None:
    """Deletes most files that no command reads, so that a copy takes less time."""
    for pattern in ("*/sweeps/*/report/[!r]*", "runs/mlflow/artifacts/**/*"):
        for path in sorted(folder.glob(pattern))[5:]:
            if path.is_file() and path.name != "learned.safetensors":
                path.unlink()


def _killed(folder: Path, commits: int, *words: str) -> None:
    """Runs a command that kills itself with SIGKILL in the given commit of a ledger, counted from 1."""
    left = commits

    def count(_: object) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    answer = command(folder, *words, prepare=lambda: set_failpoint("in_commit", count))
    assert answer.code == -signal.SIGKILL, answer


def cells(world: World, seed: int, weights: Mapping[str, int]) -> Iterator[Cell]:
    """Draws cells without end. Each kind of file is equally frequent. weights: the frequency of each command."""
    rng = random.Random(seed)
    files = world.files()
    while True:
        kind = rng.choice(sorted(files))
        name = rng.choice(files[kind])
        corruption = rng.choice(CORRUPTIONS)
        owner = re.search(r"sweeps/([a-z_]+)-", name.as_posix())
        sweep = owner[1] if owner else rng.choice(sorted(SWEEPS))
        cell = Cell(kind, name, corruption, rng.choices([*weights], [*weights.values()])[0], sweep)
        if _other(world, files, cell, rng) is not None:
            yield cell


def _other(world: World, files: dict[str, list[Path]], cell: Cell, rng: random.Random) -> Path | None:
    """Returns the file with which the cell's file is swapped or replaced; None if there is none, which excludes the
    cell. Returns the file itself if the corruption needs no other file."""
    whole = world.folder / cell.name
    if cell.corruption == "older":
        older = world.older / cell.name
        return older if older.exists() and older.read_bytes() != whole.read_bytes() else None
    if cell.corruption not in ("swapped", "other sweep's"):
        return whole
    others = [world.folder / name for name in files[cell.kind] if name != cell.name]
    if cell.corruption == "other sweep's" and "SWEEP" in cell.kind:
        mine = cell.name.parts[:3]
        others = [path for path in others if path.relative_to(world.folder).parts[:3] != mine]
    others = [path for path in others if path.read_bytes() != whole.read_bytes()]
    return rng.choice(others) if others else None


def corrupt(world: World, copy: Path, cell: Cell, rng: random.Random) -> None:
    """Corrupts the cell's file in a copy of the world."""
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
            shutil.copyfile(world.older / cell.name, path)
        case _:
            other = _other(world, world.files(), cell, rng)
            assert other is not None
            its = copy / other.relative_to(world.folder)
            theirs = its.read_bytes()
            if cell.corruption == "swapped":
                its.write_bytes(bytes(content))
            path.write_bytes(theirs)


def run(folder: Path, name: str, sweep: str) -> Outcome:
    """Runs the command of a cell in a folder, without root's right to read every file, and returns its outcome."""
    log = next(iter(folder.glob(f"runs/sweeps/{sweep}-*/supsup.log")), None)
    before = _size(log)
    if name == "open":
        answer = call(folder, lambda: _open(sweep), _prepare)
    else:
        answer = command(folder, *_words(name, sweep), prepare=_prepare)
    said = {_plain(line) for line in answer.err.splitlines() if not line.startswith("shards ")}
    said |= {_plain(line) for line in _warnings(log, before)}
    return Outcome(answer.code, _result(folder, name, sweep, answer), frozenset(said))


def _prepare() -> None:
    """Takes root's right to read every file from a command. Leaves pictures empty, because they take most of its time
    and contain no result that a table lacks."""
    drop_file_privileges()
    Figure.savefig = lambda *arguments, **settings: None  # type: ignore[method-assign]


def _words(name: str, sweep: str) -> list[str]:
    match name:
        case "status":
            return ["status", sweep, "--json"]
        case "gc":
            return ["gc", "--delete"]
        case "fsck":
            return ["fsck"]
        case "report":
            return ["report", sweep]
        case "resume":
            return ["resume", sweep, "--local"]
        case "evaluate":
            return ["evaluate", sweep, "inference.rule=binary", "--local"]
        case _:
            return ["export", sweep]


def _open(sweep: str) -> None:
    """Prints a hash of the tensors of a finished run, as they are loaded from Python."""
    from orchestrator.results.loaded_run import load_run
    from orchestrator.sweeps.run_lookup import find_run
    from supsup_core.errors import SupSupError

    try:
        found = find_run(sweep, OutputFolder(Path("runs")))
        loaded = load_run(found.sweep, found.group, found.run)
    except SupSupError as error:
        raise SystemExit(f"{error}") from error
    for state in loaded.states:
        print({name: hashlib.sha256(_bytes(tensor)).hexdigest() for name, tensor in sorted(state.items())})


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()


def _size(log: Path | None) -> int:
    return log.stat().st_size if log is not None and log.exists() else 0


def _warnings(log: Path | None, start: int) -> Iterator[str]:
    """Yields the warnings and errors that were logged after byte `start` of a log."""
    if log is None or not log.exists():
        return
    for line in log.read_bytes()[start:].decode(errors="replace").splitlines():
        try:
            node = json.loads(line)
        except ValueError:
            continue
        if isinstance(node, dict) and node.get("level") in ("WARNING", "ERROR"):
            yield str(node.get("message"))


def _plain(text: str) -> str:
    """Returns a message without numbers, which may differ between runs."""
    return re.sub(r"\d+([.,:]\d+)*", "#", text)


def _result(folder: Path, name: str, sweep: str, answer: Answer) -> object:
    """Returns everything that the user takes for true after a command."""
    output = folder / "runs"
    if name == "open":
        return answer.out
    if name == "fsck":
        return re.findall(r"found \d+ faults?", answer.out)
    if name == "status":
        return [_stable(node) for node in json.loads(answer.out)] if answer.code == 0 else None
    if name == "gc":
        return None
    if name == "export":
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in _exported(output)}
    found: dict[str, object] = {"tables": _tables(output, sweep)}
    if name == "report" or answer.code != 0:
        return found
    try:
        found |= _state(output, sweep)
    except CorruptError as error:
        found["damage"] = str(error)
    return found


def _state(output: Path, sweep: str) -> dict[str, object]:
    """Returns the trained artifacts of a sweep, the evaluations in its ledger and, of an NNs sweep, its masks."""
    found: dict[str, object] = {}
    stored = artifacts(output)
    for ledger in sorted(output.glob(f"sweeps/{sweep}-*/groups/*/ledger.sqlite")):
        with LedgerReader(ledger) as reader:
            state = GroupState().apply(reader.rows())
        found["trained"] = {key: stored.get(f"{key}.safetensors") for key in state.trained}
        found["evaluated"] = {key: row.event.facts for key, row in state.evaluated.items()}
        if "nns" in sweep:
            science = nns_science(ledger, whole_files=False)
            found["nns"] = {key: science[key] for key in ("masks", "results", "status")}
    return found


def _tables(output: Path, sweep: str) -> object:
    """Returns the tables of a sweep's report without columns of times and speeds."""
    found = {}
    for path in output.glob(f"sweeps/{sweep}-*/report/*.csv"):
        titles, *rows = csv.reader(path.read_text().splitlines())
        found[path.name] = sorted(
            [cell for title, cell in zip(titles, row, strict=True) if not _is_time(title)] for row in rows
        )
    return found


def _exported(output: Path) -> list[Path]:
    return sorted(path for path in output.rglob("artifacts/**/*.safetensors"))


def _is_time(name: str) -> bool:
    """Returns whether a column or a key holds times or speeds, which differ between runs."""
    return any(word in name for word in ("seconds", "latency", "time", "rate"))


def _stable(node: object) -> object:
    """Returns a status without times."""
    if isinstance(node, dict):
        return {key: _stable(value) for key, value in node.items() if not _is_time(key)}
    return [_stable(item) for item in node] if isinstance(node, list) else node


class Matrix:
    """Runs the cells of a world, each in a fresh copy, and collects the verdicts."""

    def __init__(self, world: World, seed: int, weights: Mapping[str, int]) -> None:
        self._world, self._seed = world, seed
        self.verdicts: dict[Verdict, list[str]] = {"found": [], "harmless": [], "silent": [], "lost": []}
        self._cells = cells(world, seed, weights)
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
        copy = self._copied(cell)
        needed = _needed(copy)
        outcome = run(copy, cell.command, cell.sweep)
        expected = self._baseline(cell.command, cell.sweep)
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
        """After fsck has found no fault, a resume must end as in the intact world, and report no fault either."""
        if cell.kind.startswith("runs/mlflow"):
            return "harmless", "fsck does not read MLflow"
        outcome, expected = run(copy, "resume", cell.sweep), self._baseline("resume", cell.sweep)
        if outcome.code != expected.code or outcome.said - expected.said:
            return "silent", f"but resume says: code {outcome.code}: {sorted(outcome.said - expected.said)}"
        if outcome.result != expected.result:
            return "silent", f"but after resume: {_difference(outcome.result, expected.result)}"
        return "harmless", ""

    def _copied(self, cell: Cell | None) -> Path:
        copy = self._world.here
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self._world.folder, copy)
        if cell is not None:
            corrupt(self._world, copy, cell, random.Random(f"{self._seed} {self._number}"))
        return copy

    def _baseline(self, name: str, sweep: str) -> Outcome:
        """Returns the outcome of a command in the intact world."""
        if (name, sweep) not in self._world.baselines:
            self._world.baselines[name, sweep] = run(self._copied(None), name, sweep)
        return self._world.baselines[name, sweep]


def _needed(copy: Path) -> list[Path]:
    """Returns the trained masks of a world, relative to its folder. No command may delete one."""
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
