"""`supsup --help` and the help of every verb are quick, complete and consistent with the table of verbs."""

from __future__ import annotations

import itertools
import pkgutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from orchestrator.cli import verbs as package
from orchestrator.cli.verb_table import SECTIONS, VERBS, load_command

Command = Callable[..., Any]

HEAVY = ("torch", "numpy", "ray", "omegaconf", "mlflow", "pandas", "matplotlib")

LIST_LOADED = f"""
import sys
from orchestrator.cli.main import main
try: main()
finally: print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)
"""


def each_command() -> Iterator[tuple[str, click.Command]]:
    """Yields every command with the words that call it. A command group is replaced by its subcommands."""
    for verb in VERBS:
        command = load_command(verb)
        if isinstance(command, click.Group):
            yield from ((f"{verb} {name}", inner) for name, inner in command.commands.items())
        else:
            yield verb, command


COMMANDS = dict(each_command())


def test_help_answers_within_a_third_of_a_second() -> None:
    times = []
    for _ in range(5):
        started = time.perf_counter()
        subprocess.run([Path(sys.executable).parent / "supsup", "--help"], capture_output=True, check=True)
        times.append(time.perf_counter() - started)
    assert statistics.median(times) < 0.3


def test_help_loads_no_heavy_library() -> None:
    command = [sys.executable, "-c", LIST_LOADED, "--help"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stderr.strip() == "[]"


def test_help_shows_every_verb_in_its_section_on_one_line(supsup: Command) -> None:
    found = supsup("--help").out
    assert "supsup sweep sweeps/quickstart.yaml" in found
    lines = iter(found.splitlines())
    for title, verbs in SECTIONS.items():
        assert f"{title}:" in lines
        for verb, row in itertools.zip_longest(verbs, itertools.takewhile(str.strip, lines)):
            assert row.split(maxsplit=1) == [verb, VERBS[verb].summary]
            assert len(row) <= 80


@pytest.mark.parametrize("verb", VERBS)
def test_summary_in_the_table_equals_the_short_help_of_the_verb(verb: str) -> None:
    assert load_command(verb).get_short_help_str(limit=200) == VERBS[verb].summary


@pytest.mark.parametrize("verb", VERBS)
def test_verb_is_in_a_file_of_its_name(verb: str) -> None:
    assert VERBS[verb].module.rpartition(".")[2].split("_")[0] == verb


def test_every_file_of_verbs_is_in_the_table() -> None:
    found = {
        module.name.removeprefix(f"{package.__name__}.")
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
        if not module.ispkg
    }
    assert found == {verb.module for verb in VERBS.values()}


@pytest.mark.parametrize("typed", COMMANDS)
def test_help_of_a_verb_has_a_sentence_details_and_an_example(supsup: Command, typed: str) -> None:
    found = supsup(*typed.split(), "--help")
    assert found.code == 0
    *text, example = found.out.rstrip().splitlines()
    assert max(map(len, text)) <= 80
    assert example.startswith(f"    supsup {typed} ")
    usage, summary, details = found.out.split("\n\n")[:3]
    assert usage.startswith(f"Usage: supsup {typed} ")
    assert " ".join(summary.split()) == COMMANDS[typed].get_short_help_str(limit=200)
    assert details.strip()
    assert f"Example: supsup {typed} " in " ".join(found.out.split())


def test_version_is_printed(supsup: Command) -> None:
    assert supsup("--version").out.startswith("supsup, version ")
