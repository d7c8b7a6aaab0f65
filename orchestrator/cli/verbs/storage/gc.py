"""`supsup gc`."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import click

from orchestrator.base.output_folder import OutputFolder
from orchestrator.base.wording import as_typed, count, in_shell, say
from orchestrator.cli.arguments import Words, example, words
from orchestrator.cli.chosen import check_is_output, fetch_all, refuse_running
from orchestrator.cli.exit_codes import ExitCode
from orchestrator.results.leftovers import Leftover, SweepNeeds, empty_trash, leftovers, needs
from orchestrator.results.output_inventory import open_artifacts
from supsup_core.errors import InputError

_SHOWN = 3
"""The largest number of files of each kind that are listed by name."""


@click.command(epilog=example("supsup gc output=runs --delete"))
@words("[output=DIR]", "output", most=0)
@click.option(
    "--delete",
    is_flag=True,
    help="Move the unneeded files to the trash. Without this option, the command changes nothing.",
)
@click.option(
    "--empty-trash", is_flag=True, help="Delete for good what earlier `gc --delete` commands moved to the trash."
)
def gc(words: Words, delete: bool, empty_trash: bool) -> int:
    """List or delete the files that no sweep of an output needs.

    These files are results of sweeps whose folders were deleted, checkpoints of tasks whose training is complete,
    corrupt files that were moved aside, temporary files of interrupted writes, and lock files of claims.

    `--delete` moves the files to a folder of the output that is named by the time, such as runs/trash/2026-11-29T10-00.
    `--empty-trash` frees the disk space. Nothing is deleted while a sweep is damaged or its folder was renamed.
    """
    output = words.output
    if delete and empty_trash:
        raise InputError(
            "command line: --delete and --empty-trash cannot be combined, because files should stay in the trash for a "
            "while; choose one of the two"
        )
    check_is_output(output)
    if delete or empty_trash:
        refuse_running(output, "gc --delete" if delete else "gc --empty-trash")
    if empty_trash:
        return _empty(output)
    fetch_all(output)
    sweeps = needs(output)
    found = leftovers(output, sweeps)
    if not delete:
        _print_needs(output, sweeps)
    by_reason: dict[str, list[Leftover]] = defaultdict(list)
    for item in found:
        by_reason[item.why].append(item)
    for why, items in sorted(by_reason.items()):
        say(f"{why}: {_size(items)}")
        if not delete:
            _list(items)
    if not found:
        say("there is nothing to delete: the sweeps need every file of this output")
    elif delete:
        trash = _fresh_trash(output)
        for item in found:
            item.discard(trash)
        say(
            f"moved {_size(found)} to {as_typed(trash)}\n"
            f"to restore them: cp -an {in_shell(trash)}/. {in_shell(output.path)}\n"
            f"to free the space: supsup gc output={in_shell(output.path)} --empty-trash"
        )
    else:
        say(f"{_size(found)} in total; nothing was deleted. To move these files to the trash, add --delete")
    return ExitCode.DONE


def _empty(output: OutputFolder) -> int:
    """Deletes the trash of an output and of its storage."""
    num_files, num_bytes = empty_trash(output)
    say(f"deleted {count(num_files, 'file')} of the trash, {num_bytes / 1e6:.1f} MB")
    return ExitCode.DONE


def _fresh_trash(output: OutputFolder) -> Path:
    """Returns an unused folder of the trash, named by the current time in UTC."""
    moment = time.strftime("%Y-%m-%dT%H-%M-%SZ", time.gmtime())
    number = 1
    while (trash := output.trash / (moment if number == 1 else f"{moment}-{number}")).exists():
        number += 1
    return trash


def _print_needs(output: OutputFolder, sweeps: Sequence[SweepNeeds]) -> None:
    """Prints how many files of the store each sweep needs, and their size."""
    sizes = open_artifacts(output).sizes(older_than=0.0)
    for sweep in sweeps:
        held = [sizes[key] for key in sweep.keys if key in sizes]
        say(f"{sweep.sweep_id} needs {count(len(held), 'file')} of the store, {sum(held) / 1e6:.1f} MB")


def _list(items: Sequence[Leftover]) -> None:
    """Prints the names of the first _SHOWN files, and the number of further files."""
    for item in items[:_SHOWN]:
        say(f"  {item.name}")
    if len(items) > _SHOWN:
        say(f"  … and {len(items) - _SHOWN} more")


def _size(items: Sequence[Leftover]) -> str:
    return f"{count(len(items), 'file')}, {sum(item.num_bytes for item in items) / 1e6:.1f} MB"
