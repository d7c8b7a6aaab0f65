"""Disks that fail, and commands that are killed in any system call: nothing is lost, and the end is the same."""

from __future__ import annotations

import errno
import os
import random
import re
import shutil
import warnings
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path

import mlflow
import numpy as np
import pytest

from tests.chaos.processes import Calls, Ended, Fault, Processes
from tests.chaos.results import assert_same
from tests.chaos.twin import FORK, Twin, write_sweeps
from tests.chaos.world import World

SAMPLES = int(os.environ.get("SUPSUP_TEST_SAMPLES", "25"))
"""In how many of a command's calls it is killed, or finds its disk broken."""

DISKS = {"EIO": (errno.EIO, Calls.CHANGE), "ENOSPC": (errno.ENOSPC, Calls.GROW), "EROFS": (errno.EROFS, Calls.CHANGE),
         "EIO in reads": (errno.EIO, Calls.READ)}  # fmt: skip
"""How a disk can fail: the number of the error, and the calls that return it."""

NEVER = 1 << 40
"""The number of a call that no command reaches."""

VERBS = ("report", "export", "fork", "gc", "fsck")


@pytest.fixture
def processes(fork_context: ForkServerContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Processes:
    # the MLflow of this process must not keep connections to the database of an output that is replaced
    monkeypatch.setenv("MLFLOW_SQLALCHEMYSTORE_POOLCLASS", "NullPool")
    write_sweeps(tmp_path)
    return Processes(fork_context, tmp_path, {"HOME": str(tmp_path / "home")})


def words_of(verb: str, twin: Twin) -> list[str]:
    """Returns a command that changes an output in which `tasks` and `nns` have ended."""
    return {
        "report": ["report", twin.ids["tasks"]],
        "export": ["export", twin.runs["tasks"][0]],
        "fork": ["fork", twin.ids["nns"], *FORK],
        "gc": ["gc", "--delete"],
        "fsck": ["fsck", "--repair", "--mlflow", "--local"],
    }[verb]


@pytest.fixture
def prepared(processes: Processes, twin: Twin) -> Callable[[str], World]:
    """Returns a function that makes an output in which `tasks` and `nns` have ended, with work for a verb."""
    first = World(processes, twin, processes.folder / "first")
    for words in (["sweep", "nns.yaml"], ["sweep", "tasks.yaml"], ["sweep", "tasks.yaml", "training.num_batches=20"]):
        ended = processes.run(*words, "--local", "output=first")
        assert ended.code == 0, ended.err
    (other,) = (path for path in first.output.glob("sweeps/tasks-*") if path.name != twin.ids["tasks"])
    shutil.rmtree(other)

    def make(verb: str) -> World:
        shutil.rmtree(processes.folder / "runs", ignore_errors=True)
        shutil.copytree(first.output, processes.folder / "runs")
        world = World(processes, twin, processes.folder / "runs")
        if verb == "fsck":
            trained, evaluated = (world.folder.store.file(keys[0]) for keys in (twin.shards, sorted(evaluations)))
            mask = next(group.masks for group in world.sweep("nns").groups()).files()
            for path in (trained, evaluated, next(iter(mask)), next(iter(world.sweep("tasks").groups())).ledger):
                spoil(world, path)
        return world

    evaluations = twin.keys["tasks"] - set(twin.shards)
    return make


def spoil(world: World, path: Path) -> None:
    """Flips bits of a file that the sweeps need."""
    content = path.read_bytes()
    path.write_bytes(content[:20] + bytes([content[20] ^ 0x41]) + content[21:])
    world.damaged.add(path.relative_to(world.output))
    world.retried[path.stem] += 1
    world.spoiled |= {path.stem} - set(world.twin.shards)


def assert_told(ended: Ended, codes: set[int]) -> None:
    told = f"exit code {ended.code}\n{ended.out}\n{ended.err}"
    assert ended.code in codes, told
    assert "Traceback" not in ended.out + ended.err, told
    assert ended.code == 0 or "supsup: " in ended.err or "FAILED" in ended.out, told


def assert_ends_the_same(world: World, verb: str, wanted: list[int]) -> None:
    """Repeats a verb, and compares the results of the sweeps with the twin's, and a model's answers with `wanted`.

    `fsck` names the sweeps that it left interrupted, and these are resumed.
    """
    begun = verb == "fork" and "fork" in world.begun()
    words = ["resume", world.twin.ids["fork"], "--local"] if begun else words_of(verb, world.twin)
    ended = world.processes.run(*words, "output=runs")
    assert ended.code == 0, ended.out + ended.err
    for name in re.findall(r"^(\S+): its last launch was interrupted", ended.out, re.MULTILINE):
        resumed = world.processes.run("resume", name, "--local", "output=runs")
        assert resumed.code == 0, resumed.out + resumed.err
    world.check()
    assert not world.damaged
    assert answers(ended) == wanted
    for name in world.begun():
        assert_same(world.twin.of(name, world.output), world.twin.alone[name], world.spoiled)


def answers(exported: Ended) -> list[int]:
    """Returns the labels that the exported model gives to some images. Other commands have no answers."""
    uri, address = (re.search(rf"{name}\('(.*)'\)", exported.out) for name in ("set_tracking_uri", "load_model"))
    if uri is None or address is None:
        return []
    mlflow.set_tracking_uri(uri[1])
    images = np.random.default_rng(0).random((20, 64), dtype=np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow warns when its module `pyfunc` is imported
        model = mlflow.pyfunc.load_model(address[1])
    return [int(label) for label in model.predict(images, params={"task": 1})["label"]]


def drawn(most: int, seed: str) -> list[int]:
    return sorted(random.Random(seed).sample(range(1, most + 1), min(most, SAMPLES)))


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("verb", VERBS)
def test_a_command_that_is_killed_in_any_call_can_be_repeated(
    processes: Processes, twin: Twin, prepared: Callable[[str], World], verb: str
) -> None:
    words = [*words_of(verb, twin), "output=runs"]
    sound = processes.run(*words, fault=Fault(prepared(verb).output, NEVER))
    wanted, most = answers(sound), sound.calls or 0
    for first in drawn(most, verb):
        world = prepared(verb)
        world.check()
        ended = processes.run(*words, fault=Fault(world.output, first))
        print(f"{verb} killed in call {first} of {most}: {ended.code}", flush=True)
        assert ended.code == -9 or first > 0.9 * most
        world.check()
        assert_ends_the_same(world, verb, wanted)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("verb", ["sweep tasks", "sweep nns", *VERBS])
@pytest.mark.parametrize("disk", DISKS)
def test_a_disk_that_fails_is_told_and_costs_no_result(
    processes: Processes, twin: Twin, prepared: Callable[[str], World], verb: str, disk: str
) -> None:
    """From a drawn call on, all calls fail, or only this one does."""
    error, calls = DISKS[disk]
    name = verb.removeprefix("sweep ")
    words = ["sweep", f"{name}.yaml", "--local"] if name != verb else words_of(verb, twin)
    words += ["output=runs"]

    def fresh() -> World:
        if name == verb:
            return prepared(verb)
        shutil.rmtree(processes.folder / "runs", ignore_errors=True)
        return World(processes, twin, processes.folder / "runs")

    sound = processes.run(*words, fault=Fault(fresh().output, NEVER, calls=calls))
    wanted, most = answers(sound), sound.calls or 0
    for number, first in enumerate(drawn(most, verb + disk)):
        world = fresh()
        if world.output.exists():
            world.check()
        ended = processes.run(*words, fault=Fault(world.output, first, error, calls, count=number % 2))
        print(f"{verb}: {disk} {'in' if number % 2 else 'from'} call {first} of {most}: {ended.code}", flush=True)
        assert_told(ended, {0, 1, 2})
        if world.output.exists():
            world.check()
        if name == verb:
            assert_ends_the_same(world, verb, wanted)
        else:
            assert processes.run(*words).code == 0
            world.check()
            assert_same(twin.of(name, world.output), twin.alone[name])
