"""Runs hostile invocations in a prepared folder, and checks what each of them may do."""

from __future__ import annotations

import os
import re
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path

from orchestrator.base.plain_values import text_value
from tests.cli.input_grammar import Invocation

MOST_SECONDS = 10.0
MOST_BYTES = 1 << 30
CODES = {0, 1, 2, 130}


@dataclass(frozen=True)
class Place:
    """A folder for one invocation. `work`: the working folder. `home`: the home folder. All else must not change."""

    root: Path

    @property
    def work(self) -> Path:
        return self.root / "work"

    @property
    def home(self) -> Path:
        return self.root / "home"


def prepare(root: Path, invocation: Invocation, output: Path) -> Place:
    """Makes the folder of an invocation, with files that are no regular files. output: an output that is copied."""
    place = Place(root)
    for folder in (place.work / "sub", place.home, root / "outside"):
        folder.mkdir(parents=True)
    (root / "outside" / "kept").write_text("kept")
    (place.work / "file.txt").write_text("text")
    (place.work / "s.yaml").write_bytes(invocation.sweep_file)
    os.mkfifo(place.work / "fifo")
    (place.work / "dangling").symlink_to("nowhere")
    (place.work / "loop").symlink_to("loop")
    shutil.copytree(output, place.work / "runs")
    return place


def files_of(root: Path) -> dict[str, tuple[int, int, int]]:
    """Returns the mode, size and modification time of everything below a folder. Links are not followed."""
    found = {}
    for folder, folders, names in os.walk(root):
        for name in (*folders, *names):
            facts = os.lstat(os.path.join(folder, name))
            size = 0 if name in folders else facts.st_size
            time = 0 if name in folders else facts.st_mtime_ns
            found[os.path.join(folder, name)] = (facts.st_mode, size, time)
    return found


def outputs_of(invocation: Invocation, place: Place) -> list[Path]:
    """Returns every folder that an invocation names as its output, its storage or the folder of a server."""
    texts = [word.partition("=")[2] for word in invocation.words if word.startswith(("output=", "storage="))]
    in_file = re.findall(r"(?:^|[{,\s])(?:output|storage): *(.*)", invocation.sweep_file.decode("utf-8", "replace"))
    texts += [text.strip() for text in in_file]
    named = ["runs", "server", *(invocation.words[1:] if invocation.words[0] == "server" else ())]
    found = []
    for typed in [*map(text_value, texts), *named]:
        if typed is not None:
            path = Path(typed.removeprefix("file://"))
            try:
                path = path.expanduser()
            except RuntimeError:
                continue
            found.append(Path(os.path.realpath(place.work / path)))
    return found


def changed_outside(
    invocation: Invocation,
    place: Place,
    before: dict[str, tuple[int, int, int]],
    after: dict[str, tuple[int, int, int]],
) -> list[str]:
    """Returns the paths that an invocation made, changed or removed outside its outputs and the home folder."""
    allowed = [*outputs_of(invocation, place), place.home]
    changed = [path for path in before.keys() | after.keys() if before.get(path) != after.get(path)]
    return sorted(path for path in changed if not any(_inside(Path(path), folder) for folder in allowed))


def _inside(path: Path, folder: Path) -> bool:
    real = Path(os.path.realpath(path.parent)) / path.name
    return real == folder or folder in real.parents or real in folder.parents


def complaint(invocation: Invocation, code: int, out: str, err: str) -> str | None:
    """Returns what is wrong with the exit code and the printed texts of an invocation, or None.

    Bad input gives one line, at the end. `supsup cluster check` gives one line for each problem of a cluster file.
    """
    if code not in CODES:
        return f"exit code {code}"
    if "Traceback" in out + err:
        return "a traceback"
    if code == 2 and invocation.words[0] != "cluster" and not err.splitlines()[-1:][0].startswith("supsup: "):
        return "exit code 2 without a last line that begins with supsup:"
    if unprintable := [char for char in out + err if not char.isprintable() and char not in "\n\t\udcff"]:
        return f"an unprintable character {unprintable[0]!r}"
    return None


def free_port() -> int:
    """Returns a port of this machine at which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
