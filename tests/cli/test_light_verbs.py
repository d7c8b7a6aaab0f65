"""Verbs that only read ledgers and folders import no heavy library such as torch, so they answer quickly."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli.verb_table import VERBS

Command = Callable[..., Any]

HEAVY = ("torch", "numpy", "omegaconf", "pandas", "ray", "mlflow")

RUN = f"""
import sys
from orchestrator.cli.main import main
try: main()
except SystemExit as end: print(end.code, [name for name in {HEAVY} if name in sys.modules], file=sys.stderr)
"""


def run(folder: Path, words: Sequence[str]) -> str:
    """Runs a command in a new process. Returns its last line: the exit code and the imported heavy libraries."""
    ran = subprocess.run([sys.executable, "-c", RUN, *words], cwd=folder, capture_output=True, text=True, check=True)
    return ran.stderr.splitlines()[-1]


def test_verbs_that_only_read_ledgers_and_folders_import_no_heavy_library(
    supsup: Command, sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    assert supsup("sweep", sweep_file(), "--local").code == 0
    for words in (["status"], ["status", "--json"], ["logs"], ["gc"], ["gc", "--delete"]):
        assert run(tmp_path, words) == "0 []", words
    for words in (["stop"], ["drain"]):
        assert run(tmp_path, words) == "2 []", words  # the sweep is not running
    assert run(tmp_path, ["ui", "output=elsewhere"]) == "2 []"  # there is nothing to serve
    ended, loaded = run(tmp_path, ["fsck"]).split(maxsplit=1)
    assert (ended, "mlflow" in loaded) == ("0", False)


def test_fetch_imports_no_heavy_library(supsup: Command, sweep_file: Callable[..., Path], tmp_path: Path) -> None:
    storage = f"storage=file://{tmp_path}/stored"
    assert supsup("sweep", sweep_file(), storage, "--local").code == 0
    ended, loaded = run(tmp_path, ["fetch", storage, "output=elsewhere"]).split(maxsplit=1)
    assert ended == "0"
    assert "torch" not in loaded
    assert list((tmp_path / "elsewhere").glob("sweeps/*/sweep.json"))


@pytest.mark.parametrize("verb", [name for name, verb in VERBS.items() if verb.is_light])
def test_help_of_a_light_verb_imports_no_heavy_library(verb: str, tmp_path: Path) -> None:
    assert run(tmp_path, [verb, "--help"]) == "0 []"
