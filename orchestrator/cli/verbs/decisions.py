"""The decisions of NNs as their ledgers hold them: listed, and judged again by another test."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from omegaconf import OmegaConf

from orchestrator.records.group_state import GroupState
from orchestrator.records.ledger import LedgerReader
from orchestrator.results.report.tables import decisions_table
from orchestrator.spec.experiment import Allocation, build_experiment
from orchestrator.spec.sweep_config import parse_overrides
from orchestrator.sweeps.lookup import find_sweep, read_state
from orchestrator.sweeps.sweep import Sweep
from orchestrator.sweeps.training_groups import Group
from supsup_core.errors import InputError
from supsup_core.evaluation.metrics import AllocationTally

_REPLAYED = ("allocation.", "budget.num_masks")
"""The keys that a replay may change: those a verdict depends on, given the slopes."""

_IN_THE_SLOPES = ("allocation.objective", "allocation.images_per_decision")
"""But for these, which the recorded slopes already depend on."""


def list_decisions(wanted: str | None, output: Path, as_csv: bool) -> int:
    """Print every committed decision of a sweep: a table, or CSV."""
    sweep = find_sweep(output, wanted)
    streaming = _streaming(sweep)
    table = decisions_table([group for group, _, _ in streaming], {g.group_id: state for g, state, _ in streaming})
    if as_csv:
        table.to_csv(sys.stdout, index=False)
        return 0
    print(_text(table))
    for (run, seed), part in table.groupby(["run", "seed"], sort=False):
        outcomes = ", ".join(f"{count} {outcome}" for outcome, count in part["outcome"].value_counts().items())
        print(
            f"{run} seed={seed}: {len(part)} decisions ({outcomes}); "
            f"{part['duplicate'].sum()} duplicates, {part['wrong_reuse'].sum()} wrong reuses; "
            f"median latency {1000 * part['latency'].median():.1f} ms"
        )
    return 0


def replay(wanted: str | None, output: Path, overrides: Sequence[str], as_csv: bool) -> int:
    """Print which recorded decisions another test or threshold would have taken otherwise."""
    changes = parse_overrides(overrides)
    for key in changes:
        if not key.startswith(_REPLAYED) or key in _IN_THE_SLOPES:
            raise InputError(
                f"command line: {key}: a replay judges the recorded slopes again, so only the test (allocation.name "
                f"and its own keys) and budget.num_masks can change; for the rest, `supsup fork` with {key}=…"
            )
    sweep = find_sweep(output, wanted)
    found: list[_Again] = []
    refused: list[InputError] = []
    streaming = _streaming(sweep)
    for group, state, path in streaming:
        try:
            other = _allocation(group, changes)
        except InputError as error:
            refused.append(error)
            continue
        found += _replayed(group, state, path, other)
    if len(refused) == len(streaming):
        raise min(refused, key=lambda error: "unknown key" in str(error))  # some run knows the key: its value is wrong
    table = pd.DataFrame([again.row for again in found if again.changed])
    if as_csv:
        table.to_csv(sys.stdout, index=False)
        return 0
    compared = [again for again in found if again.comparable]
    if not table.empty:
        print(_text(table))
    forgets = sum(again.changed and again.now_known and not again.right for again in found)
    wastes = sum(again.changed and not again.now_known and again.right for again in found)
    to_known = sum(again.changed and again.now_known for again in found)
    print(
        f"{len(table)} of {len(compared)} decisions would have changed: {to_known} from new to known ({forgets} to the "
        f"mask of another task), {len(table) - to_known} from known to new ({wastes} a duplicate)."
    )
    if refused:
        print(f"{len(refused)} of {len(streaming)} runs have a test without such a key, and were left out.")
    if len(compared) < len(found):
        print(
            f"{len(found) - len(compared)} decisions cannot be judged again: the test wants another number of "
            "untrained masks in the superposition than was there."
        )
    print("Each is judged by itself: what a changed decision would have led to later is for `supsup fork` to show.")
    return 0


@dataclass(frozen=True)
class _Again:
    """A decision judged again. `right`: the steepest mask belongs to the segment's task."""

    row: dict[str, Any]
    comparable: bool
    was_known: bool
    now_known: bool
    right: bool

    @property
    def changed(self) -> bool:
        return self.comparable and self.was_known != self.now_known


def _replayed(group: Group, state: GroupState, path: Path, other: Allocation) -> Iterator[_Again]:
    recorded = _allocation(group, {})
    tally = AllocationTally()
    with LedgerReader(path) as reader:
        reader.rows()
        for row in state.decisions:
            payload, k = row.payload, row.payload["num_masks"]
            if k:
                slopes = np.frombuffer(reader.attachment(row.seq) or b"", "<f4").astype(np.float64)
                was = recorded.test.judge(slopes, k, recorded.capacity)
                now = other.test.judge(slopes, k, other.capacity)
                cells = {name: payload[name] for name in ("round", "stream", "task", "segment", "num_masks", "best")}
                cells = {
                    "run": group.runs[0].label,
                    "seed": group.experiment.seed,
                    **cells,
                    "outcome": payload["outcome"],
                }
                cells |= {
                    "statistic": now.statistic,
                    "threshold": now.threshold,
                    "now": "known" if now.known else "new",
                }
                right = tally.owners.get(payload["best"]) == payload["task"]
                comparable = other.test.num_untrained(k) == len(slopes) - k
                yield _Again(cells, comparable, was.known, now.known, right)
            tally.add(payload["task"], payload["mask"], payload["freed"])


def _allocation(group: Group, changes: dict[str, Any]) -> Allocation:
    """The group's allocation with some keys changed; another test starts from its own defaults."""
    node = dict(group.experiment.node)
    name = changes.get("allocation.name", node["allocation"]["name"])
    if name != node["allocation"]["name"]:
        shared = ("objective", "images_per_decision")
        node["allocation"] = {"name": name, **{key: node["allocation"][key] for key in shared}}
    config = OmegaConf.create(node)
    for key, value in changes.items():
        OmegaConf.update(config, key, value, force_add=True)
    plain: Any = OmegaConf.to_container(config)
    try:
        allocation = build_experiment(plain, group.experiment.seed).allocation
    except InputError as error:
        raise InputError(f"command line: {error}") from error
    assert allocation is not None
    return allocation


def _streaming(sweep: Sweep) -> list[tuple[Group, GroupState, Path]]:
    """The sweep's NNs groups with their states and ledgers; InputError when there is none."""
    found = []
    for group in sweep.plan():
        if group.experiment.allocation is not None:
            found.append((group, read_state(sweep, group.group_id), sweep.ledger_path(group.group_id)))
    if not found:
        raise InputError(f"{sweep.sweep_id}: no run of scenario NNs in it, and only those decide about masks")
    return found


def _text(table: pd.DataFrame) -> str:
    """A table for a terminal."""
    shown = table.drop(columns=[name for name in ("time", "latency") if name in table])
    return str(shown.to_string(index=False, na_rep="–", float_format=lambda value: f"{value:.3f}"))
