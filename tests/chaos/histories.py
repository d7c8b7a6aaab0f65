"""A history: commands on one output, drawn by a seed, that are killed, stopped, disturbed, or run two at once."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple

from tests.chaos.processes import Calls, Command, Ended, Fault, Processes
from tests.chaos.results import Results, assert_same
from tests.chaos.twin import EVALUATE, FORK, Twin, write_sweeps
from tests.chaos.world import World
from tests.outputs import kill_all

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)

UNKNOWN_CALLS = 300
"""How many calls on files a command is thought to make until one like it has ended."""


class Trouble(NamedTuple):
    """What happens to a command: a fault in one of its calls, or a signal after some seconds."""

    fault: Fault | None = None
    number: signal.Signals | None = None
    seconds: float = 0.0

    def __str__(self) -> str:
        if self.number is not None:
            return f"{self.number.name} after {self.seconds:.2f} s"
        if self.fault is None:
            return "undisturbed"
        if self.fault.error:
            name = errno.errorcode[self.fault.error]
            return f"{name} from call {self.fault.first}" + (" once" if self.fault.count else "")
        return f"killed in call {self.fault.first}"

    def codes(self, ok: Collection[int]) -> set[int]:
        """Returns the exit codes that a command may have, whose codes are `ok` without this trouble."""
        if self.fault is not None:
            return {*ok, 1, 2} if self.fault.error else {*ok, -signal.SIGKILL}
        if self.number is None:
            return set(ok)
        return {*ok, -signal.SIGKILL} if self.number is signal.SIGKILL else {*ok, 130, -self.number}


class History:
    """Steps on one output. with_ray: whether some of the sweeps run on Ray."""

    def __init__(self, processes: Processes, twin: Twin, folder: Path, seed: int, with_ray: bool = False) -> None:
        write_sweeps(folder)
        self.world = World(processes, twin, folder / "runs")
        self.done: Counter[str] = Counter()
        self._number = 0
        self._processes = processes
        self._draw = random.Random(seed)
        self._seed = seed
        self._with_ray = with_ray
        self._calls: dict[tuple[str, ...], int] = {}
        """How many calls on files a command made when it last ended, by its first words."""
        self._left: list[tuple[Path, dict[Path, int]]] = []
        """Outputs that were copied to another place, and the times of their files."""
        self._actions: list[tuple[int, Callable[[], None]]] = [
            (10, self._launch), (4, self._launch_two), (3, self._launch_and_ask), (3, self._damage),
            (2, self._repair), (3, self._collect), (2, self._report), (1, self._export), (2, self._cancel),
            (2, self._retry), (1, self._copy), (1, self._move), (1, self._delete), (2, self._look),
        ]  # fmt: skip

    def step(self) -> None:
        """Performs a step and checks the output."""
        actions = [action for weight, action in self._actions for _ in range(weight)]
        if not self.world.begun():
            actions = [self._launch, self._launch, self._launch_two]
        action = self._draw.choice(actions)
        self.done[action.__name__.strip("_")] += 1
        self._number += 1
        self._tell(action.__name__.strip("_"))
        action()
        self.world.check()

    def finish(self) -> None:
        """Completes all sweeps, deletes what none needs, and compares the results with those of the twin."""
        world, place = self.world, self._place
        for name in world.begun():
            if world.state(name).stopped is not None or world.state(name).cancelled:
                self._perform(["retry", world.twin.runs[name][0], "--local", place], [0])
        self._perform(["sweep", "tasks.yaml", "--local", place], [0])
        self._perform(["sweep", "nns.yaml", "--local", place], [0])
        self._perform(["evaluate", world.twin.ids["tasks"], *EVALUATE, place], [0])
        self._perform([*self._fork_words(), place], [0])
        if world.damaged:
            self._perform(["fsck", "--repair", "--local", place], [0])
        world.check()
        assert not world.damaged
        self._perform(["gc", "--delete", place], [0])
        world.check()
        for name in world.twin.ids:
            self._perform(["resume", world.twin.ids[name], "--local", place], [0])
        world.check()
        assert_same(Results.of(world.output), world.twin.results, world.spoiled)
        for output, times in self._left:
            assert _times(output) == times, f"{output} was written after it was copied"

    # ---- commands

    @property
    def _place(self) -> str:
        return f"output={self.world.output.relative_to(self._processes.folder)}"

    def _tell(self, text: str) -> None:
        print(f"seed {self._seed}, step {self._number}: {text}", flush=True)

    def _trouble(self, words: list[str]) -> Trouble:
        """Draws the trouble of a command."""
        most = self._calls.get(tuple(words[:2]), UNKNOWN_CALLS)
        match self._draw.choices(("none", "kill", "kill later", "stop", "error"), (8, 7, 2, 2, 2))[0]:
            case "kill":
                return Trouble(Fault(self.world.output, self._draw.randint(1, most)))
            case "kill later":
                return Trouble(None, signal.SIGKILL, self._draw.uniform(0, 1.5))
            case "stop":
                return Trouble(None, self._draw.choice(STOPS), self._draw.uniform(0, 1.5))
            case "error":
                error, calls = self._draw.choice(((errno.EIO, Calls.CHANGE), (errno.ENOSPC, Calls.GROW)))
                first, count = self._draw.randint(1, most), self._draw.choice((0, 1))
                return Trouble(Fault(self.world.output, first, error, calls, count))
        return Trouble()

    def _start(self, words: list[str], trouble: Trouble) -> Command:
        fault = trouble.fault or Fault(self.world.output, sys.maxsize)  # only counts
        return self._processes.start(*words, fault=fault)

    def _end(self, command: Command, words: list[str], trouble: Trouble, ok: Collection[int]) -> Ended:
        """Waits for the end of a command, and checks its exit code and its messages."""
        if trouble.number is not None:
            time.sleep(trouble.seconds)
            command.signal(trouble.number)
        ended = command.wait()
        if ended.calls is not None:
            self._calls[tuple(words[:2])] = max(ended.calls, 1)
        self.done["killed"] += ended.code == -signal.SIGKILL
        self._tell(f"  supsup {' '.join(words)}: {trouble}; exit code {ended.code}")
        told = f"exit code {ended.code}\n{ended.out}\n{ended.err}"
        assert ended.code in trouble.codes(ok), told
        assert "Traceback" not in ended.out + ended.err, told
        assert ended.code <= 0 or ended.err or ended.out, "no message"
        return ended

    def _perform(self, words: list[str], ok: Collection[int], trouble: Trouble | None = None) -> Ended:
        """Runs a command to its end."""
        trouble = trouble or Trouble()
        return self._end(self._start(words, trouble), words, trouble, ok)

    # ---- steps

    def _fork_words(self) -> list[str]:
        if "fork" in self.world.begun():
            return ["resume", self.world.twin.ids["fork"], "--local"]
        return ["fork", self.world.twin.ids["nns"], *FORK]

    def _launch_words(self) -> list[str]:
        """Draws a command that runs a sweep, among those that are possible now."""
        world = self.world
        choices = [["sweep", f"{name}.yaml", "--local"] for name in ("tasks", "nns")] * 2
        choices += [["resume", world.twin.ids[name], "--local"] for name in world.begun()] * 3
        if "tasks" in world.begun() and world.state("tasks").status == "done":
            choices += [["evaluate", world.twin.ids["tasks"], *EVALUATE]] * 2
        if "nns" in world.begun() and world.state("nns").done_shards() >= 2:
            choices += [self._fork_words()] * 3
        return [*self._draw.choice(choices), self._place]

    @property
    def _launch_codes(self) -> tuple[int, ...]:
        """The exit codes of a launch. A sweep that was cancelled in part, or that lacks files, may end with 1 or 2."""
        states = [self.world.state(name) for name in self.world.begun()]
        has_cancelled = any(state.stopped is not None or state.cancelled for state in states)
        return (0, 1, 2) if has_cancelled or self.world.damaged else (0,)

    def _launch(self) -> None:
        words, ok = self._launch_words(), self._launch_codes
        if self._with_ray and words[0] == "resume" and self._draw.random() < 0.1:
            self._launch_on_ray([word for word in words if word != "--local"], ok)
            return
        self._perform(words, ok, self._trouble(words))

    def _launch_on_ray(self, words: list[str], ok: Collection[int]) -> None:
        """Runs a command on Ray to its end, or kills its processes after some seconds."""
        command = [sys.executable, "-m", "orchestrator.cli", *words]
        process = subprocess.Popen(
            command, cwd=self._processes.folder, env={**os.environ, **self._processes.environment}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        if self._draw.random() < 0.6:
            time.sleep(self._draw.uniform(3, 15))
            kill_all(process.pid)
            ok = (*ok, -signal.SIGKILL)
        out, _ = process.communicate(timeout=200)
        self.done["on ray"] += 1
        self.done["killed"] += process.returncode == -signal.SIGKILL
        self._tell(f"  supsup {' '.join(words)} on Ray: exit code {process.returncode}")
        assert process.returncode in ok, out

    def _launch_two(self) -> None:
        """Two launches at once, of the same or of different sweeps. One may be refused."""
        both = [self._launch_words(), self._launch_words()]
        self._at_once(both, self._launch_codes)

    def _launch_and_ask(self) -> None:
        """A launch, and another command at the same time."""
        words, place = self._launch_words(), self._place
        name = self._draw.choice(self.world.begun())
        sweep, run = self.world.twin.ids[name], self.world.twin.runs[name][0]
        asked = self._draw.choice(
            (["report", sweep], ["gc", "--delete"], ["fsck"], ["stop", sweep], ["drain", sweep], ["cancel", run],
             ["fsck", "--repair", "--local"], ["status"])
        )  # fmt: skip
        self._at_once([words, [*asked, place]], (*self._launch_codes, 1, 130))

    def _at_once(self, both: list[list[str]], ok: Collection[int]) -> None:
        troubles = [self._trouble(words) for words in both]
        commands = []
        for words, trouble in zip(both, troubles, strict=True):
            commands.append(self._start(words, trouble))
            time.sleep(self._draw.choice((0, self._draw.uniform(0, 1))))
        for command, words, trouble in zip(commands, both, troubles, strict=True):
            self._end(command, words, trouble, {*ok, 2})

    def _damage(self) -> None:
        """Damages or removes a file that the sweeps need."""
        world = self.world
        if world.damaged:
            return self._repair()
        stored = [world.folder.store.file(key) for key in sorted(world.needed())]
        masks = [path for name in world.begun() for group in world.sweep(name).groups() for path in group.masks.files()]
        files = [path for path in (*stored, *sorted(masks)) if path.exists()]
        names = [name for name in world.begun() if not world.state(name).cancelled and not world.state(name).stopped]
        ledgers = [group.ledger for name in names for group in world.sweep(name).groups()]
        path = self._draw.choice([*files, *ledgers * 2] or [None])
        if path is None:
            return None
        content = path.read_bytes()
        how = self._draw.choice(("flip", "cut", "remove") if path in ledgers + stored else ("flip", "cut"))
        if path in stored and path.stem not in world.trained_keys():
            how = "flip"  # only a missing trained task counts as damage
        self._tell(f"  {how} {path.relative_to(world.output)}")
        path.unlink()  # a fork's mask versions are hard links of its origin's
        if how == "flip":
            middle = len(content) // 2 if path not in ledgers else 20  # in a ledger, of the header
            path.write_bytes(content[:middle] + bytes([content[middle] ^ 0x41]) + content[middle + 1 :])
        elif how == "cut":
            path.write_bytes(content[: len(content) // 3])
        if path in ledgers:
            for suffix in ("-wal", "-shm"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
        world.damaged.add(path.relative_to(world.output))
        if path in stored:
            world.retried[path.stem] += 1
            world.spoiled |= {path.stem} - world.trained_keys()
        return None

    def _repair(self) -> None:
        words = ["fsck", "--repair", "--local", self._place]
        self._perform(words, self._launch_codes, self._trouble(words))

    def _collect(self) -> None:
        """`gc --delete`, which refuses while a ledger is damaged or missing."""
        words = self._draw.choice((["gc", "--delete"], ["gc", "--delete"], ["gc", "--empty-trash"], ["gc"]))
        self._perform([*words, self._place], (0, 2), self._trouble(words))

    def _report(self) -> None:
        sweep = self.world.twin.ids[self._draw.choice(self.world.begun())]
        words = ["report", sweep, self._place]
        self._perform(words, (0, 1, 2), self._trouble(words))

    def _export(self) -> None:
        run = self._draw.choice(self.world.twin.runs[self._draw.choice(self.world.begun())])
        words = ["export", run, self._place]
        self._perform(words, (0, 1, 2), self._trouble(words))

    def _look(self) -> None:
        """Commands that change nothing."""
        words = self._draw.choice((["status"], ["logs"], ["decisions"], ["plan", "tasks.yaml"], ["status", "--json"]))
        self._perform([*words, self._place], (0, 1, 2))

    def _cancel(self) -> None:
        name = self._draw.choice(self.world.begun())
        words = ["cancel", self._draw.choice(self.world.twin.runs[name])]
        if name == "tasks" and self._draw.random() < 0.6:
            words += ["--task", str(self._draw.randrange(3))]
        self._perform([*words, self._place], (0, 2), self._trouble(words))

    def _retry(self) -> None:
        name = self._draw.choice(self.world.begun())
        words = ["retry", self._draw.choice(self.world.twin.runs[name])]
        if name == "tasks" and self._draw.random() < 0.6:
            task = self._draw.randrange(3)
            words += ["--task", str(task)]
            self.world.retried[self.world.twin.shards[task]] += 1
        self._perform([*words, "--local", self._place], (0, 1, 2), self._trouble(words))

    def _copy(self) -> None:
        """Copies the output, and continues in the copy. Nothing may read or write the old place any more."""
        old, new = self.world.output, self._fresh()
        shutil.copytree(old, new)
        self._left.append((old, _times(old)))
        self.world.moved(new)

    def _move(self) -> None:
        new = self._fresh()
        self.world.output.rename(new)
        self.world.moved(new)

    def _fresh(self) -> Path:
        return self._processes.folder / f"runs {self._number}"

    def _delete(self) -> None:
        """Deletes a sweep, as a user does who gives it up."""
        name = self._draw.choice(self.world.begun())
        if name != "nns" or "fork" not in self.world.begun():
            shutil.rmtree(self.world.sweep(name).path)
            self.world.forget(name)


def _times(output: Path) -> dict[Path, int]:
    """Returns the time of the last change of each file and folder of an output."""
    return {path: path.lstat().st_mtime_ns for path in output.rglob("*")}
