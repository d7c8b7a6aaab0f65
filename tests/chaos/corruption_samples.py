"""Outputs of small sweeps, killed or finished, and what a user takes for true after a command on them."""

from __future__ import annotations

import csv
import functools
import hashlib
import json
import os
import re
import shutil
import signal
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import torch
import yaml
from matplotlib.figure import Figure

from orchestrator.base.failpoints import set_failpoint
from orchestrator.base.output_folder import OutputFolder
from orchestrator.records.group_state import GroupState
from orchestrator.records.ledgers.ledger import LedgerReader
from orchestrator.tracking import mlflow_store
from supsup_core.errors import CorruptError
from tests.chaos.processes import Ended, Processes, drop_file_privileges
from tests.conftest import SMALL
from tests.outputs import artifacts, nns_science

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
class Sample:
    """A folder with sweep files, an output `runs` and maybe a storage `stored`.

    `older`: the same folder at an earlier time. `processes`: runs commands in their working folder, on copies of
    `folder`, because an output contains the absolute path of its storage.
    """

    folder: Path
    older: Path
    processes: Processes
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
    """Returns the kind of a file, which is its name without ids. name: relative to a sample's folder."""
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


def build(context: ForkServerContext, folder: Path, storage: bool) -> tuple[Sample, Sample]:
    """Builds two samples: an output whose sweeps were killed, and the same output after they were resumed."""
    here, early, killed, done = (folder / name for name in ("here", "early", "killed", "done"))
    here.mkdir(parents=True)
    processes = Processes(context, here, {"HOME": str(here)}, folder / "streams")
    mlflow_store.create_database(OutputFolder(here / "runs").mlflow)
    for name, node in SWEEPS.items():
        content = {**SMALL, **node, "name": name, "snapshot_every": 0.001}
        (here / f"{name}.yaml").write_text(yaml.safe_dump(content))
    extra = [f"storage=file://{here}/stored"] if storage else []
    for name in SWEEPS:
        _killed(processes, 4, "sweep", f"{name}.yaml", "--local", *extra)
    shutil.copytree(here, early)
    for name in SWEEPS:
        _killed(processes, 5, "resume", name, "--local")
    shutil.copytree(here, killed)
    for name in SWEEPS:
        ended = processes.run("resume", name, "--local")
        assert ended.code == 0, ended
    _prune(here)
    shutil.copytree(here, done)
    return Sample(killed, early, processes), Sample(done, killed, processes)


def _prune(folder: Path) -> None:
    """Deletes most files that no command reads, so that a copy takes less time."""
    for pattern in ("*/sweeps/*/report/[!r]*", "runs/mlflow/artifacts/**/*"):
        for path in sorted(folder.glob(pattern))[5:]:
            if path.is_file() and path.name != "learned.safetensors":
                path.unlink()


def _killed(processes: Processes, commits: int, *words: str) -> None:
    """Runs a command that kills itself with SIGKILL in the given commit of a ledger, counted from 1."""
    ended = processes.run(*words, prepare=functools.partial(_die_in_commit, commits))
    assert ended.code == -signal.SIGKILL, ended


def _die_in_commit(commits: int) -> None:
    """Lets this process kill itself in the given commit of a ledger."""
    numbers = iter(range(1, commits + 1))

    def count(_: object) -> None:
        if next(numbers) == commits:
            os.kill(os.getpid(), signal.SIGKILL)

    set_failpoint("in_commit", count)


def run(sample: Sample, name: str, sweep: str) -> Outcome:
    """Runs the command of a cell in the sample's working folder, without root's right to read every file."""
    processes = sample.processes
    folder = processes.folder
    log = next(iter(folder.glob(f"runs/sweeps/{sweep}-*/supsup.log")), None)
    before = _size(log)
    if name == "open":
        answer = processes.call(functools.partial(_open, sweep), _prepare)
    else:
        answer = processes.run(*_words(name, sweep), prepare=_prepare)
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


def _result(folder: Path, name: str, sweep: str, answer: Ended) -> object:
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
