"""`supsup gc`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import click

from orchestrator.base.wording import count
from orchestrator.cli.arguments import Words, example, words
from orchestrator.cli.chosen import check_is_output, fetch_all, refuse_running
from orchestrator.cli.exit_codes import ExitCode
from orchestrator.results.output_inventory import Leftover, leftovers

_SHOWN = 3
"""The most files of each kind that are listed by name."""


@click.command(epilog=example("supsup gc output=runs --delete"))
@words("[output=DIR]", "output", most=0)
@click.option("--delete", is_flag=True, help="Delete the files. Without this option, the command only lists the files.")
def gc(words: Words, delete: bool) -> int:
    """List or delete the files that no sweep of an output needs.

    These files are results of sweeps whose folders were deleted, checkpoints of tasks whose training is complete,
    corrupt files that were moved aside, temporary files of interrupted writes, and lock files of claims.
    """
    output = words.output
    check_is_output(output)
    if delete:
        refuse_running(output, "gc --delete")
    fetch_all(output)
    found = leftovers(output)
    by_reason: dict[str, list[Leftover]] = defaultdict(list)
    for item in found:
        by_reason[item.why].append(item)
    for why, items in sorted(by_reason.items()):
        print(f"{why}: {_size(items)}")
        if not delete:
            _list(items)
    if not found:
        print("there is nothing to delete: the sweeps need every file of this output")
    elif delete:
        for item in found:
            item.remove()
        print(f"deleted {_size(found)}")
    else:
        print(f"{_size(found)} in total; no file was deleted. To delete these files, add --delete")
    return ExitCode.DONE


def _list(items: Sequence[Leftover]) -> None:
    """Prints the names of the first _SHOWN files, and the number of further files."""
    for item in items[:_SHOWN]:
        print(f"  {item.name}")
    if len(items) > _SHOWN:
        print(f"  … and {len(items) - _SHOWN} more")


def _size(items: Sequence[Leftover]) -> str:
    return f"{count(len(items), 'file')}, {sum(item.num_bytes for item in items) / 1e6:.1f} MB"
