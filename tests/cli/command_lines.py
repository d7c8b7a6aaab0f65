"""Command lines for tests. They are built from the table of verbs, so a test of all verbs covers new verbs too."""

from __future__ import annotations

from pathlib import Path

import click

from orchestrator.cli.arguments import WordsArgument
from orchestrator.cli.verb_table import SECTIONS, VERBS, load_command

_CLUSTER_VERBS = next(verbs for title, verbs in SECTIONS.items() if "clusters" in title)


def parameter(verb: str, name: str) -> click.Parameter | None:
    """Returns the parameter of a verb with this name, or None."""
    return next((one for one in load_command(verb).params if one.name == name), None)


def words_of(verb: str) -> WordsArgument | None:
    """Returns the click argument that collects a verb's positional words, or None."""
    found = parameter(verb, "words")
    return found if isinstance(found, WordsArgument) else None


def verbs_of_an_output() -> list[str]:
    """Returns all verbs that work in an output folder on this machine."""
    verbs = [verb for verb in VERBS if verb not in _CLUSTER_VERBS]
    return [verb for verb in verbs if words_of(verb) is not None or parameter(verb, "overrides") is not None]


def verbs_of_existing_sweeps() -> list[str]:
    """Returns the verbs that take names of sweeps or runs, and so need an output that contains sweeps."""
    found = [(verb, words_of(verb)) for verb in verbs_of_an_output()]
    return [verb for verb, words in found if words is not None and words.most != 0 and "storage" not in _needed(words)]


def verbs_without_names() -> list[str]:
    """Returns the verbs whose sweep name is optional: without a name, they choose the sweep themselves."""
    found = [(verb, words_of(verb)) for verb in verbs_of_existing_sweeps()]
    return [verb for verb, words in found if words is not None and not words.least]


def verbs_with_few_names() -> list[str]:
    """Returns the verbs that limit the number of their names."""
    found = [(verb, words_of(verb)) for verb in verbs_of_an_output()]
    return [verb for verb, words in found if words is not None and words.most is not None]


def _needed(words: WordsArgument) -> list[str]:
    """Returns the required key=value options of a verb: those that its help shows without brackets."""
    return [option for option in words.options if f" {option}=" in f" {words.metavar}"]


def command_line(verb: str, sweep_file: Path) -> list[str]:
    """Returns the shortest valid command line of a verb."""
    words = words_of(verb)
    if words is None:
        return [verb, str(sweep_file)]
    line = [verb, *[f"GNu seed={number}" for number in range(words.least)]]
    if words.noun == "sweep" and words.least:
        line = [verb, "small", "inference.rule=binary"]
    return [*line, *(f"{option}=file:///nowhere/at/all" for option in _needed(words))]
