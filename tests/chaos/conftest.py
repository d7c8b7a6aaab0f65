"""A Ray cluster whose nodes a test can kill, add and drain."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.processes import Processes, fork_context  # noqa: F401 - a fixture
from tests.chaos.twin import Twin, make_twin


class Nodes:
    """A Ray cluster in a separate process, which runs `tests.chaos.nodes`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.address, *self.ids = self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def _tell(self, *words: object) -> Any:
        assert self._process.stdin is not None
        print(*words, file=self._process.stdin, flush=True)
        return self._answer()

    def kill(self, number: int) -> None:
        """Kills a node with all its processes."""
        self._tell("kill", number)

    def add(self) -> None:
        """Adds a node."""
        self.ids.append(self._tell("add"))

    def drain(self, number: int, seconds: int) -> None:
        """Drains a node with a deadline in seconds, as when a cloud reclaims a spot machine."""
        subprocess.run(
            [
                Path(sys.executable).parent / "ray", "drain-node", "--address", self.address,
                "--node-id", self.ids[number], "--reason", "DRAIN_NODE_REASON_PREEMPTION",
                "--reason-message", "taken away", "--deadline-remaining-seconds", str(seconds),
            ],
            check=True, capture_output=True, timeout=60,
        )  # fmt: skip


@pytest.fixture
def cluster_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Nodes]]:
    """Returns a function that starts a head without CPUs and a given number of one-CPU nodes, with a Ray token.

    Its keywords are those of tests/chaos/nodes.py.
    """
    token = tmp_path / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    started: list[subprocess.Popen[str]] = []

    def start(num_nodes: int = 0, **options: Any) -> Nodes:
        arguments = json.dumps({"num_nodes": num_nodes, **options})
        command = [sys.executable, "-m", "tests.chaos.nodes", arguments]
        started.append(
            subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
        )
        return Nodes(started[-1])

    yield start
    for process in started:
        process.communicate(timeout=60)


@pytest.fixture(scope="session")
def twin(fork_context: ForkServerContext, tmp_path_factory: pytest.TempPathFactory) -> Twin:  # noqa: F811
    """What undisturbed commands make of the sweeps of `tests.chaos.twin`."""
    folder = tmp_path_factory.mktemp("twin")
    return make_twin(Processes(fork_context, folder, {"HOME": str(folder)}), folder)
