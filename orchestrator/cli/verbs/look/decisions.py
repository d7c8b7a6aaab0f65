"""`supsup decisions`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import click
import numpy as np
import pandas as pd
from omegaconf import OmegaConf

from orchestrator.base.output_folder import GroupFolder
from orchestrator.base.plain_values import Node
from orchestrator.base.wording import say
from orchestrator.cli.arguments import Words, example, words
from orchestrator.cli.exit_codes import ExitCode
from orchestrator.records.group_state import GroupState
from orchestrator.records.ledgers.ledger import LedgerReader
from orchestrator.records.rows import SegmentDecided
from orchestrator.results.csv_table import to_csv
from orchestrator.results.report.tables import decisions_table
from orchestrator.spec.experiment import Allocation, build_experiment
from orchestrator.spec.overrides import parse_overrides
from orchestrator.sweeps.lookup import read_state
from orchestrator.sweeps.sweep import Sweep, find_sweep
from orchestrator.sweeps.training_groups import Group
from supsup_core.errors import InputError, prefix_errors
from supsup_core.evaluation.metrics import AllocationTally

_REPLAYED = ("allocation.", "budget.num_masks")
"""The keys that a replay may change. From these keys and the slopes, the allocation test classifies the data as new or
known."""

_FORKED = ("allocation.", "budget.", "evaluation.", "inference.", "benchmark.num_tasks")
"""The keys that a fork may change."""

_IN_THE_SLOPES = ("allocation.objective", "allocation.images_per_decision")
"""Keys below `allocation.` that a replay cannot change, because the recorded slopes depend on them."""


@click.command(epilog=example("supsup decisions nns_quick --replay allocation.name=ratio allocation.epsilon=0.2"))
@words("[SWEEP] [output=DIR] [key=value]...", "output", has_overrides=True)
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@click.option(
    "--replay", "changes", multiple=True, metavar="key=value",
    help="Set a key of allocation.*, or budget.num_masks, to this value, and list only the decisions that would "
    "change. To change several keys, add more key=value words.",
)  # fmt: skip
def decisions(words: Words, as_csv: bool, changes: tuple[str, ...]) -> int:
    """List the decisions of NNs runs, one for each segment.

    NNs is the scenario in which no task identity is given. A segment is a sequence of training batches. A decision
    chooses the mask to train on a segment: an existing mask for known data, or a new mask for new data. SWEEP is the
    name of a sweep or its beginning (default: the newest sweep of the output).

    With --replay, the command applies another allocation test to the recorded slopes, and trains nothing.
    """
    if words.overrides and not changes:
        key = words.overrides[0].partition("=")[0]
        raise click.UsageError(
            f"{key}: is not an option of this command; the options are: output=…, and keys of the allocation test "
            "after --replay"
        )
    if changes:
        _replay(words, [*changes, *words.overrides], as_csv)
    else:
        _list(words, as_csv)
    return ExitCode.DONE


@dataclass(frozen=True)
class _NNsGroup:
    """A training group of scenario NNs, with its state and its folder."""

    group: Group
    state: GroupState
    folder: GroupFolder


def _nns_groups(sweep: Sweep) -> list[_NNsGroup]:
    """Returns the training groups of a sweep that have scenario NNs. Raises InputError if there is no such group."""
    folders = [(group, sweep.folder.group(group.group_id)) for group in sweep.plan()]
    found = [_NNsGroup(g, read_state(folder), folder) for g, folder in folders if g.experiment.allocation is not None]
    if not found:
        raise InputError(
            f"{sweep.sweep_id}: has no run of scenario NNs, and only NNs runs record decisions; name another sweep"
        )
    return found


def _list(words: Words, as_csv: bool) -> None:
    """Prints every committed decision of a sweep, as a table or as CSV."""
    found = _nns_groups(find_sweep(words.output, words.name))
    table = decisions_table([one.group for one in found], {one.group.group_id: one.state for one in found})
    if as_csv:
        say(to_csv(table), end="")
        return
    say(_as_text(table))
    for (run, seed), part in table.groupby(["run", "seed"], sort=False):
        outcomes = ", ".join(f"{count} {outcome}" for outcome, count in part["outcome"].value_counts().items())
        say(
            f"{run} seed={seed}: {len(part)} decisions ({outcomes}); "
            f"{part['duplicate'].sum()} duplicates, {part['wrong_reuse'].sum()} wrong reuses; "
            f"median latency of a decision {1000 * part['latency'].median():.1f} ms"
        )


@dataclass(frozen=True)
class _Replayed:
    """A recorded decision, and how another allocation test classifies the same slopes.

    `row`: the printed columns. `comparable`: whether the run's superposition had as many untrained masks as the other
    test needs. `was_known`, `now_known`: whether the run's test and the other test judge the data to be known. `right`:
    whether the learned mask with the largest slope belongs to the segment's task.
    """

    row: Node
    comparable: bool
    was_known: bool
    now_known: bool
    right: bool

    @property
    def changed(self) -> bool:
        """Whether the two tests are comparable and classify the segment's data differently."""
        return self.comparable and self.was_known != self.now_known


def _replay(words: Words, overrides: Sequence[str], as_csv: bool) -> None:
    """Prints the recorded decisions that another allocation test, or other values of its keys, would change."""
    changes = _parse_changes(overrides)
    groups = _nns_groups(find_sweep(words.output, words.name))
    replayed: list[_Replayed] = []
    refused: list[InputError] = []
    for one in groups:
        try:
            other = _allocation(one.group, changes)
        except InputError as error:
            refused.append(error)
            continue
        replayed += _judge_again(one, other)
    if len(refused) == len(groups):
        raise min(refused, key=lambda error: "unknown key" in str(error))  # prefers errors about wrong values
    table = pd.DataFrame([one.row for one in replayed if one.changed])
    if as_csv:
        say(to_csv(table), end="")
        return
    if not table.empty:
        say(_as_text(table))
    _print_counts(replayed)
    if refused:
        say(
            f"{len(refused)} of {len(groups)} training groups were left out, because the changed keys do not fit their "
            "allocation test."
        )
    say(
        "Each decision is judged alone, from its recorded slopes. To see the effect of a changed decision on the rest "
        "of the run, use `supsup fork`."
    )


def _parse_changes(overrides: Sequence[str]) -> Node:
    """Returns the values of overrides by key. Raises InputError for a key that a replay cannot change."""
    changes = parse_overrides(overrides)
    for key in changes:
        if not key.startswith(_REPLAYED) or key in _IN_THE_SLOPES:
            fork = ", or use `supsup fork`" if key.startswith(_FORKED) else ""
            raise InputError(
                f"command line: {key}: a replay reuses the recorded slopes, so it can change only budget.num_masks and "
                f"those keys of the allocation test that do not affect the slopes. To change {key}, start a new "
                f"sweep with {key}=…{fork}"
            )
    return changes


def _judge_again(one: _NNsGroup, other: Allocation) -> Iterator[_Replayed]:
    """Yields the recorded decisions of a group, and how the test in `other` classifies the same slopes.

    Leaves out decisions that were made before any mask was in use, because these decisions have no slopes.
    """
    recorded = _allocation(one.group, {})
    tally = AllocationTally()
    with LedgerReader(one.folder.ledger) as reader:
        reader.rows()
        for row in one.state.decisions:
            event, k = row.event, row.event.num_masks
            if k:
                slopes = np.frombuffer(reader.attachment(row.seq) or b"", "<f4").astype(np.float64)
                was = recorded.test.judge(slopes, k, recorded.capacity)
                now = other.test.judge(slopes, k, other.capacity)
                verdict = {
                    "statistic": now.statistic,
                    "threshold": now.threshold,
                    "now": "known" if now.known else "new",
                }
                right = event.best is not None and tally.owners.get(event.best) == event.task
                comparable = other.test.num_untrained(k) == len(slopes) - k
                yield _Replayed(_cells(one.group, event) | verdict, comparable, was.known, now.known, right)
            tally.add(event.task, event.mask, event.freed)


def _cells(group: Group, event: SegmentDecided) -> Node:
    """Returns the first columns of a replayed decision: the run, and the decision as recorded."""
    return {
        "run": group.runs[0].label, "seed": group.experiment.seed,
        "round": event.round, "stream": event.stream, "task": event.task, "segment": event.segment,
        "num_masks": event.num_masks, "best": event.best, "outcome": event.outcome,
    }  # fmt: skip


def _print_counts(replayed: Sequence[_Replayed]) -> None:
    changed = [one for one in replayed if one.changed]
    num_comparable = sum(one.comparable for one in replayed)
    to_known = [one for one in changed if one.now_known]
    forgets = sum(not one.right for one in to_known)
    wastes = sum(not one.now_known and one.right for one in changed)
    say(
        f"{len(changed)} of {num_comparable} decisions would have changed: {len(to_known)} from new to known "
        f"({forgets} of them would train the mask of another task), {len(changed) - len(to_known)} from known to new "
        f"({wastes} of them would allocate a duplicate)."
    )
    if num_comparable < len(replayed):
        say(
            f"{len(replayed) - num_comparable} decisions were left out, because the changed test needs a different "
            "number of untrained masks in the superposition than the run used."
        )


def _allocation(group: Group, changes: Node) -> Allocation:
    """Returns the allocation settings of a group with some keys changed.

    changes: values by dotted key. If the changes select another test, the test's keys get their defaults. Only
    `objective` and `images_per_decision` keep the group's values. Raises InputError if a key or value is wrong.
    """
    node = dict(group.experiment.node)
    name = changes.get("allocation.name", node["allocation"]["name"])
    if name != node["allocation"]["name"]:
        shared = ("objective", "images_per_decision")
        node["allocation"] = {"name": name, **{key: node["allocation"][key] for key in shared}}
    config = OmegaConf.create(node)
    for key, value in changes.items():
        OmegaConf.update(config, key, value, force_add=True)
    plain: Node = OmegaConf.to_container(config)  # type: ignore[assignment]  # of a DictConfig, a dict
    with prefix_errors("command line: "):
        allocation = build_experiment(plain, group.experiment.seed).allocation
    assert allocation is not None
    return allocation


def _as_text(table: pd.DataFrame) -> str:
    """Returns a table as text for a terminal, without the columns `time` and `latency`."""
    shown = table.drop(columns=[name for name in ("time", "latency") if name in table])
    return str(shown.to_string(index=False, na_rep="–", float_format=lambda value: f"{value:.3f}"))
