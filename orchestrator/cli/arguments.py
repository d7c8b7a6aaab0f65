"""Options and arguments that several verbs of the command line share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

OVERRIDES = click.argument("overrides", nargs=-1, metavar="[key=value]...")
LOCAL = click.option("--local", is_flag=True, help="One process, one worker, no Ray.")
ADDRESS = click.option(
    "--address", envvar="RAY_ADDRESS", metavar="HOST:PORT",
    help="Run on the Ray cluster there (default: RAY_ADDRESS, else a Ray of its own on this machine).",
)  # fmt: skip
WORKERS = click.option(
    "--workers",
    type=click.IntRange(min=1),
    metavar="N",
    help="Workers per training group, at most (resources.num_workers).",
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def split(arguments: Sequence[str], known: tuple[str, ...]) -> tuple[str | None, dict[str, str]]:
    """At most one bare word, and key=value pairs with known keys."""
    words, options = [], {}
    for item in arguments:
        key, equals, value = item.partition("=")
        if not equals:
            words.append(item)
        elif key in known:
            options[key] = value
        else:
            raise click.UsageError(f"{key}: not an option here; there are: {', '.join(f'{k}=…' for k in known)}")
    if len(words) > 1:
        raise click.UsageError(f"one sweep at a time, not {', '.join(words)}")
    return (words[0] if words else None), options


def cluster_of(local: bool, address: str | None) -> str | None:
    """Where to run: in this process (None), on a Ray of its own (`local`), or on the cluster at an address."""
    return None if local else address or "local"


def output_of(options: dict[str, str]) -> Path:
    """The output folder that `output=` names; without it, runs."""
    return Path(options.get("output", "runs")).expanduser().absolute()


def output_alone(arguments: Sequence[str]) -> Path:
    """The output folder, where nothing else may be said."""
    unwanted, options = split(arguments, ("output",))
    if unwanted is not None:
        raise click.UsageError(f"{unwanted!r} is not output=DIR")
    return output_of(options)
