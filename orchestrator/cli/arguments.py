"""Defines the arguments and options that several verbs share, and parses the bare words of a command line.

Bare words are names (of a sweep, a run or a job), options such as `output=DIR`, and overrides (`key=value`), in any
order. The decorator `words` declares the bare words that a verb accepts.
"""

from __future__ import annotations

import functools
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from orchestrator.base.output_folder import OutputFolder, SweepFolder
from orchestrator.base.plain_values import is_text, text_value
from orchestrator.base.wording import in_shell
from orchestrator.execution.ray_preparation import refuse_unreachable
from supsup_core.input_files import user_path

SWEEP_FILE = click.argument("file", type=click.Path(path_type=Path))
OVERRIDES = click.argument("overrides", nargs=-1, metavar="[key=value]...")
WORKERS = click.option(
    "--workers", type=click.IntRange(min=1), metavar="N",
    help="The maximum number of workers per training group (default: resources.num_workers of the sweep).",
)  # fmt: skip
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
PORT = click.option(
    "--port", type=click.IntRange(1, 65535), default=5000, show_default=True, metavar="N",
    help="The port on 127.0.0.1 that the server listens on.",
)  # fmt: skip
JOB_ADDRESS = click.option(
    "--address", envvar="RAY_API_SERVER_ADDRESS", metavar="URL",
    help="For a job on a Ray cluster: the URL of the cluster's dashboard (default: the environment variable "
    "RAY_API_SERVER_ADDRESS). Without a URL, the command looks for a sweep on this machine.",
)  # fmt: skip


def example(command: str) -> str:
    """Returns the epilog of a verb's help: an example command, on one line so that it can be pasted."""
    return f"\b\nExample:\n  {command}"


def tasks_option(help: str) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Returns a decorator that adds the repeatable option `--task N`. The verb gets the numbers as argument `tasks`."""
    return click.option("--task", "tasks", type=click.IntRange(min=0), multiple=True, metavar="N", help=help)


def cluster_options(function: Callable[..., int]) -> Callable[..., int]:
    """Adds the options `--local` and `--address` to a verb, which gets them as the argument `cluster`.

    The value of `cluster` is None to run in this process without Ray, `local` to start Ray on this machine, or the
    address of a Ray cluster.
    """

    @click.option("--local", is_flag=True, help="Run in this process, with one worker and without Ray.")
    @click.option(
        "--address", envvar="RAY_ADDRESS", metavar="HOST:PORT",
        help="The address of the Ray cluster to run on (default: the environment variable RAY_ADDRESS). Without an "
        "address, the command starts Ray on this machine.",
    )  # fmt: skip
    @functools.wraps(function)
    def with_cluster(local: bool, address: str | None, **others: Any) -> int:
        if address and not local:
            refuse_unreachable(address)
        return function(cluster=None if local else address or "local", **others)

    return with_cluster


@dataclass(frozen=True)
class Words:
    """The parsed bare words of a command line.

    `output`: the folder of `output=DIR`; by default `runs` in the working directory. `data`, `storage`: the values of
    `data=DIR` and `storage=URL`, or None.
    """

    names: tuple[str, ...]
    overrides: tuple[str, ...]
    output: OutputFolder
    data: Path | None
    storage: str | None

    @property
    def name(self) -> str | None:
        """The first name, or None if no name is given."""
        return self.names[0] if self.names else None

    @property
    def job(self) -> str:
        """The name of a submitted job. Raises click.UsageError if no name is given."""
        if self.name is None:
            raise click.UsageError("JOB is missing: give the name of a submitted job, or the beginning of the name")
        return self.name


class WordsArgument(click.Argument):
    """The bare words of one verb, parsed into `Words` (see `words`)."""

    def __init__(
        self,
        *args: Any,
        options: Sequence[str],
        noun: str,
        least: int,
        most: int | None,
        has_overrides: bool,
        **kw: Any,
    ) -> None:
        super().__init__(*args, nargs=-1, callback=self._parse, **kw)
        self.options = options
        self.noun = noun
        self.least = least
        self.has_overrides = has_overrides
        self.most = most

    def _parse(self, ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> Words:
        """Sorts the typed words into options, names and overrides. Raises click.UsageError for any other word."""
        given: dict[str, str] = {}
        names, overrides = [], []
        for word in values:
            key, equals, value = word.partition("=")
            if equals and key in self.options:
                if (text := text_value(value)) is not None:
                    if not is_text(text):
                        raise click.UsageError(f"{key}: {text} is not valid UTF-8; rename the folder")
                    given[key] = text
                elif key == "output":
                    raise click.UsageError("output: the folder is missing; write, for example, output=runs")
            elif not equals or self.noun == "run":  # the names of runs contain `seed=0`
                names.append(word)
            elif self.has_overrides:
                overrides.append(word)
            else:
                raise click.UsageError(f"{key}: is not an option of this command; the options are: {self._known()}")
        self._check_count(names)
        data = user_path(given["data"]) if "data" in given else None
        output = OutputFolder(user_path(given.get("output", "runs")))
        return Words(tuple(names), tuple(overrides), output, data, given.get("storage"))

    def _check_count(self, names: Sequence[str]) -> None:
        """Raises click.UsageError if there are too few or too many names."""
        if len(names) < self.least:
            kind = (
                "the run's id, or words of its name" if self.noun == "run" else "its name, or the beginning of its name"
            )
            raise click.UsageError(f"{self.noun.upper()} is missing: give {kind}")
        if self.most is None or len(names) <= self.most:
            return
        if not self.most:
            raise click.UsageError(f"{names[0]!r} is not an option of this command; the options are: {self._known()}")
        quoted = (
            f"; put the words of a run's name in quotes: {shlex.quote(' '.join(names))}" if self.noun == "run" else ""
        )
        raise click.UsageError(f"give one {self.noun}, not {len(names)}: {', '.join(names)}{quoted}")

    def _known(self) -> str:
        return ", ".join(f"{key}=…" for key in self.options)


def words(
    metavar: str, *options: str, noun: str = "sweep", least: int = 0, most: int | None = 1, has_overrides: bool = False
) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Returns a decorator that declares the bare words of a verb. The verb gets the words as the argument `words`.

    metavar: the description of the words in `--help`. options: the allowed keys among `output`, `data` and `storage`.
    noun: what a name stands for, `sweep` or `run`, for messages. least, most: the minimum and maximum number of names;
    most=None means no maximum. has_overrides: whether further key=value words are allowed, as overrides.
    """
    return click.argument(
        "words", cls=WordsArgument, metavar=metavar, options=options, noun=noun, least=least, most=most,
        has_overrides=has_overrides,
    )  # fmt: skip


def run_command(verb: str, folder: SweepFolder, run: str, tasks: Sequence[int] = ()) -> str:
    """Returns a `supsup` command, ready to paste into a shell, for a run or for some tasks of the run."""
    named = shlex.quote(f"{folder.sweep_id} {run}")
    return " ".join(
        ["supsup", verb, named, *(f"--task {task}" for task in tasks), f"output={in_shell(folder.output.path)}"]
    )
