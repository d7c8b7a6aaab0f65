"""Command lines for tests, made from the table of verbs: so a test of all verbs also covers one that is added later."""

from __future__ import annotations

from pathlib import Path

import click

from orchestrator.cli.arguments import WordsArgument
from orchestrator.cli.verb_table import SECTIONS, VERBS, load_command

_CLUSTER_VERBS = next(verbs for title, verbs in SECTIONS.items() if "clusters" in title)


def parameter(verb: str, name: str) -> click.Parameter | None:
    """A parameter of a verb, by its name."""
    return next((one for one in load_command(verb).params if one.name == name), None)


def words_of(verb: str) -> WordsArgument | None:
    """The bare words that a verb takes."""
    found = parameter(verb, "words")
    return found if isinstance(found, WordsArgument) else None


def verbs_of_an_output() -> list[str]:
    """All verbs that work in an output folder on this machine."""
    verbs = [verb for verb in VERBS if verb not in _CLUSTER_VERBS]
    return [verb for verb in verbs if words_of(verb) is not None or parameter(verb, "overrides") is not None]


def verbs_of_existing_sweeps() -> list[str]:
    """The verbs of an output that take sweeps or runs in it by name, so that it must hold some."""
    found = [(verb, words_of(verb)) for verb in verbs_of_an_output()]
    return [verb for verb, words in found if words is not None and words.most != 0 and "storage" not in _needed(words)]


def verbs_without_names() -> list[str]:
    """The verbs that take the name of a sweep, and choose the sweep themselves where there is none."""
    found = [(verb, words_of(verb)) for verb in verbs_of_existing_sweeps()]
    return [verb for verb, words in found if words is not None and not words.least]


def verbs_with_few_names() -> list[str]:
    """The verbs that take at most one name."""
    found = [(verb, words_of(verb)) for verb in verbs_of_an_output()]
    return [verb for verb, words in found if words is not None and words.most is not None]


def _needed(words: WordsArgument) -> list[str]:
    """The options without which a verb cannot do anything: those that its help shows without brackets."""
    return [option for option in words.options if f" {option}=" in f" {words.metavar}"]


def command_line(verb: str, sweep_file: Path) -> list[str]:
    """The least that a verb can be called with."""
    words = words_of(verb)
    if words is None:
        return [verb, str(sweep_file)]
    line = [verb, *[f"GNu seed={number}" for number in range(words.least)]]
    if words.noun == "sweep" and words.least:
        line = [verb, "small", "inference.rule=binary"]
    return [*line, *(f"{option}=file:///nowhere/at/all" for option in _needed(words))]
