"""`supsup fork`, extended NNs runs and `supsup decisions --replay`, as commands in one process."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.base.output_folder import OutputFolder
from orchestrator.records.group_state import GroupState
from orchestrator.records.ledgers.ledger import LedgerReader
from orchestrator.records.rows import RunForked
from orchestrator.results.report.tables import confusion_table
from orchestrator.sweeps.sweep import find_sweep
from tests.outputs import decisions

Command = Callable[..., Any]

NNS: dict[str, Any] = {
    "scenario": "NNs",
    "benchmark": {"name": "permuted", "base": "digits", "num_tasks": 4},
    "net": {"name": "lenet_300_100", "num_outputs": 100},
    "training": {"num_batches": 120, "learning_rate": 2e-3},
    "stream": {"segment_batches": 40},
    "allocation": {"name": "outlier"},
    "budget": {"num_masks": 6},
    "evaluation": {"at": [2, 4]},
    "inference": {"strict_images": 0},
}


def states(output: Path) -> dict[str, GroupState]:
    """Returns the state of every ledger of an output, by the name of the sweep's folder."""
    found = {}
    for path in output.glob("sweeps/*/groups/*/ledger.sqlite"):
        with LedgerReader(path) as reader:
            found[path.parts[-4]] = GroupState().apply(reader.rows())
    return found


def results(state: GroupState) -> Any:
    """Returns the decisions, the due evaluations, and the evaluation points of the only run, without its id."""
    points = {n: (row.event.metrics, row.event.keys) for (_, n), row in state.points.items()}
    return decisions(state), state.due, points


def forked(output: Path, fork: str) -> RunForked:
    """Returns the event that records the origin of a fork of one run."""
    (ledger,) = (output / "sweeps" / fork).glob("groups/*/ledger.sqlite")
    with LedgerReader(ledger) as reader:
        return next(row.event for row in reader.rows() if isinstance(row.event, RunForked))


def masks_kept(output: Path) -> set[str]:
    return {path.stem for path in output.glob("sweeps/*/groups/*/masks/??/*.safetensors")}


def the_fork(output: Path, origin: set[str]) -> str:
    (name,) = {path.name for path in (output / "sweeps").iterdir()} - origin
    return name


def test_an_extended_run_has_the_same_bits_as_a_longer_run(
    supsup: Command, sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    file = sweep_file(**NNS)
    longer = ["benchmark.num_tasks=6", "evaluation.at=[2,4,6]"]
    assert supsup("sweep", file, "--local", "output=whole", *longer).code == 0
    assert supsup("sweep", file, "--local").code == 0
    origin = set(os.listdir(tmp_path / "runs" / "sweeps"))
    before = states(tmp_path / "runs")
    damaged = max(tmp_path.glob("runs/sweeps/*/groups/*/masks/??/*.safetensors"))
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    found = supsup("fork", "small", "--local", *longer)
    assert found.code == 0
    assert f"{damaged}: its bytes do not match its SHA-256; the fork trains this mask version again" in found.err
    assert "6/6 shards" in found.out
    fork = the_fork(tmp_path / "runs", origin)
    after = states(tmp_path / "runs")
    (whole,) = states(tmp_path / "whole").values()
    assert results(after[fork]) == results(whole)
    assert {name: results(after[name]) for name in origin} == {name: results(before[name]) for name in origin}
    assert after[fork].machines == whole.machines  # none of an unknown kind
    node = json.loads((tmp_path / "runs" / "sweeps" / fork / "sweep.json").read_text())
    assert node["origin"][:2] == [*origin, 4]
    again = supsup("fork", "small-", "--local", *longer)
    assert again.code == 2
    assert supsup("resume", fork, "--local").code == 0


@pytest.mark.parametrize("kept", [True, False])
def test_a_fork_has_the_decisions_of_its_origin_up_to_the_fork_point(
    supsup: Command, sweep_file: Callable[..., Path], tmp_path: Path, kept: bool
) -> None:
    """Missing masks of the origin are rebuilt to the same bits."""
    assert supsup("sweep", sweep_file(**NNS), "--local").code == 0
    (origin,) = os.listdir(tmp_path / "runs" / "sweeps")
    if not kept:
        for path in (tmp_path / "runs").glob("sweeps/*/groups/*/masks/??/*.safetensors"):
            path.unlink()
    found = supsup("fork", origin, "--at-task", "2", "allocation.name=ratio", "allocation.epsilon=9", "--local")
    assert found.code == 0, found.err
    assert "recomputed" not in found.out
    fork = the_fork(tmp_path / "runs", {origin})
    theirs, mine = (states(tmp_path / "runs")[name] for name in (origin, fork))
    assert decisions(mine)[:6] == decisions(theirs)[:6]
    assert {row.event.outcome for row in mine.decisions[6:]} <= {"allocate", "reuse", "reclaim"}
    assert mine.due[2] == theirs.due[2]
    first = [next(row.event.metrics["accuracy"] for (_, n), row in s.points.items() if n == 2) for s in (mine, theirs)]
    assert first[0] == first[1]


REFUSED: list[tuple[list[str], list[str]]] = [
    ([], ["give at least one key that the fork changes"]),
    (["training.learning_rate=1e-3"], ["cannot change how its masks are trained"]),
    (["stream.order=recurring", "stream.visits=3"], ["cannot change stream.*"]),
    (["--at-task", "9", "allocation.false_alarm_rate=0.1"], ["the data of 4 tasks", "not 9"]),
    (["budget.num_masks=1"], ["budget.num_masks", "allows 1"]),
    (["allocation.epsilon=0.1"], ["allocation.epsilon"]),
    (
        ["--at-task", "1", "stream.segment_batches=60"],
        ["stream.segment_batches", "must keep the value of the original sweep"],
    ),
    (["benchmark.num_tasks=2"], ["2 is below the 4 tasks that the fork starts with"]),
]


def test_an_impossible_fork_is_refused_and_leaves_no_files(
    supsup: Command, sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    assert supsup("sweep", sweep_file(**NNS), "--local").code == 0

    def kept() -> list[Path]:
        return sorted(path for path in (tmp_path / "runs" / "sweeps").rglob("*") if "ledger.sqlite-" not in path.name)

    before = kept()
    for arguments, words in REFUSED:
        found = supsup("fork", "small", "--local", *arguments)
        assert found.code == 2, arguments
        assert len(found.err.strip().splitlines()) == 1, found.err
        for word in words:
            assert word in found.err
        assert kept() == before, arguments


def test_a_fork_of_many_streams_keeps_every_point(
    supsup: Command, sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    """With three streams and one segment per task, several tasks end in one round."""
    stream = {"segment_batches": 120, "num_streams": 3}
    assert (
        supsup("sweep", sweep_file(**{**NNS, "stream": stream, "evaluation": {"at": [1, 2, 3, 4]}}), "--local").code
        == 0
    )
    (origin,) = os.listdir(tmp_path / "runs" / "sweeps")
    found = supsup("fork", origin, "--at-task", "1", "allocation.false_alarm_rate=0.02", "--local")
    assert found.code == 0, found.out
    fork = the_fork(tmp_path / "runs", {origin})
    state = states(tmp_path / "runs")[fork]
    assert sorted(state.due) == sorted(n for _, n in state.points) == [1, 2, 3, 4]
    assert sorted(state.met) == [1, 2, 3, 4]


def test_a_fork_of_a_sweep_with_several_runs_needs_the_name_of_one_run(
    supsup: Command, sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    both = {**NNS, "grid": {"scenario": ["GNu", "NNs"], "budget.on_exhausted": ["skip", "reclaim"]}}
    assert supsup("sweep", sweep_file(**both), "--local").code == 0
    (origin,) = os.listdir(tmp_path / "runs" / "sweeps")
    change = ["scenario=NNs", "budget.on_exhausted=reuse", "--at-task", "2", "--local"]
    found = supsup("fork", origin, *change)
    assert found.code == 2
    for word in ("--run", "on_exhausted=skip", "on_exhausted=reclaim"):
        assert word in found.err
    assert supsup("fork", origin, "--run", "on_exhausted=skip", *change).code == 0
    fork = the_fork(tmp_path / "runs", {origin})
    event = forked(tmp_path / "runs", fork)
    assert event == RunForked(origin, event.group_id, 2)


def test_a_fork_that_fits_several_runs_chooses_one_by_its_group_id(
    supsup: Command, sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    stream = {"segment_batches": 40, "visits": 3}
    both = {
        **NNS,
        "stream": stream,
        "grid": {"stream.order": ["blocks", "recurring"], "budget.on_exhausted": ["skip", "reclaim"]},
    }
    assert supsup("sweep", sweep_file(**both), "--local").code == 0
    (origin,) = os.listdir(tmp_path / "runs" / "sweeps")
    change = ["budget.on_exhausted=reuse", "--at-task", "2", "--local"]
    found = supsup("fork", origin, *change)
    assert found.code == 2
    named = found.err.split("with --run from: ")[1].split()[0]
    assert supsup("fork", origin, "--run", named, *change).code == 0
    fork = the_fork(tmp_path / "runs", {origin})
    assert forked(tmp_path / "runs", fork).group_id == named


def test_skipped_segments_are_counted_and_reported(
    supsup: Command, sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    tight = {
        **NNS,
        "budget": {"num_masks": 2, "on_exhausted": "skip"},
        "allocation": {"name": "ratio", "epsilon": 9.0},
    }
    found = supsup("sweep", sweep_file(**tight), "--local")
    assert found.code == 0
    (state,) = states(tmp_path / "runs").values()
    skipped = sum(row.event.outcome == "skip" for row in state.decisions)
    assert skipped > 0
    assert f"WARNING  NNs one_shot entropy ratio seed=0: no mask was trained on {skipped} of 12 segments" in found.out
    assert "budget.on_exhausted=reclaim" in found.out
    assert state.met[4].event.metrics["segments_not_trained"] == skipped
    assert max(row.event.metrics["masks"] for row in state.met.values()) == 2
    assert "2 masks" in supsup("status").out
    report = next((tmp_path / "runs").glob("sweeps/*/report"))
    for name in ("masks_over_tasks.png", "statistic_over_masks.png"):
        assert (report / name).read_bytes().startswith(b"\x89PNG")
        assert name in (report / "report.md").read_text()
    assert len((report / "decisions.csv").read_text().splitlines()) == 1 + 12
    assert len((report / "masks.csv").read_text().splitlines()) == 1 + 4


def test_decisions_are_listed_and_replayed(supsup: Command, sweep_file: Callable[..., Path], tmp_path: Path) -> None:
    assert supsup("sweep", sweep_file(**NNS), "--local").code == 0
    (state,) = states(tmp_path / "runs").values()
    found = supsup("decisions", "--csv")
    rows = list(csv.DictReader(io.StringIO(found.out)))
    assert len(rows) == 12
    for row, committed in zip(rows, state.decisions, strict=True):
        assert row["outcome"] == committed.event.outcome
        assert float(row["statistic"]) == committed.event.statistic
        assert float(row["margin"]) == pytest.approx(float(row["statistic"]) - float(row["threshold"]))
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", row["time"])
    listed = supsup("decisions").out
    assert "12 decisions" in listed
    assert "wrong reuses" in listed
    same = supsup("decisions", "--replay", "allocation.false_alarm_rate=0.01")
    assert "0 of 11 decisions would have changed" in same.out
    known = sum(row["outcome"] == "train" for row in rows)
    stern = supsup("decisions", "--replay", "allocation.false_alarm_rate=1e-300")
    ratio_decided = sum(row["num_masks"] == "1" for row in rows if row["outcome"] == "train")
    assert f"{known - ratio_decided} of 11 decisions would have changed: 0 from new to known" in stern.out
    other = supsup("decisions", "--replay", "allocation.name=ratio", "allocation.epsilon=9")
    assert "decisions were left out" in other.out
    for key in ("stream.order=blocks", "allocation.objective=energy", "allocation.images_per_decision=1"):
        refused = supsup("decisions", "--replay", key)
        assert refused.code == 2
        assert f"start a new sweep with {key.partition('=')[0]}=…" in refused.err
        assert ("supsup fork" in refused.err) == key.startswith("allocation.")  # a fork cannot change stream.*


def test_the_confusion_table_names_masks_by_their_numbers(
    supsup: Command, sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    """After a reclaim, a mask's number differs from its index."""
    assert supsup("sweep", sweep_file(**NNS), "--local").code == 0
    sweep = find_sweep(OutputFolder(tmp_path / "runs"), None)
    groups = sweep.plan()
    found = {groups[0].group_id: next(iter(states(tmp_path / "runs").values()))}
    before = confusion_table(groups, found)["mask"].tolist()
    due = found[groups[0].group_id].due
    due[4] = replace(due[4], numbers=tuple(10 + number for number in due[4].numbers))
    assert before
    assert confusion_table(groups, found)["mask"].tolist() == [10 + number for number in before]


def test_a_run_with_a_single_decision_can_be_reported(supsup: Command, sweep_file: Callable[..., Path]) -> None:
    changes = {"benchmark": {**NNS["benchmark"], "num_tasks": 1}, "stream": {"segment_batches": 120}}
    found = supsup("sweep", sweep_file(**{**NNS, **changes, "evaluation": {"at": [1]}}), "--local")
    assert found.code == 0, found.err
    assert "1/1 shards" in found.out


def test_decisions_of_a_sweep_without_nns_are_refused(supsup: Command, sweep_file: Callable[..., Path]) -> None:
    assert supsup("sweep", sweep_file(), "--local").code == 0
    found = supsup("decisions")
    assert found.code == 2
    assert "no run of scenario NNs" in found.err


def test_evaluating_another_inference_adds_no_decision_and_no_mask_file(
    supsup: Command, sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    """Tasks recur, so the masks of the first evaluation point were trained further. The evaluation rebuilds them."""
    stream = {"segment_batches": 40, "order": "recurring", "visits": 3}
    assert supsup("sweep", sweep_file(**{**NNS, "stream": stream}), "--local").code == 0
    (before,) = states(tmp_path / "runs").values()
    files = masks_kept(tmp_path / "runs")
    assert not set(before.due[2].keys) <= files
    found = supsup("evaluate", "small", "inference.rule=binary", "--local")
    assert found.code == 0
    assert "NNs binary entropy outlier" in found.out
    (after,) = states(tmp_path / "runs").values()
    assert decisions(after) == decisions(before)
    assert len(after.points) == 2 * len(before.points)
    assert masks_kept(tmp_path / "runs") == files
