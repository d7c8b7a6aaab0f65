"""The current version reads, checks and completes outputs that version 0.1.0 wrote."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.base.output_folder import OutputFolder
from orchestrator.records.artifact_store import ArtifactStore
from orchestrator.records.group_state import GroupState
from orchestrator.records.ledgers.ledger import LedgerReader, open_ledger
from orchestrator.records.rows import AnyRow, event_from_json
from tests.outputs import artifacts, nns_science, the_ledger, trained

EARLIER = Path(__file__).parents[1] / "data" / "outputs_of_0_1"
DONE, INTERRUPTED = ("done_tasks", "done_nns"), ("interrupted_tasks", "interrupted_nns")

Supsup = Callable[..., Any]


@pytest.fixture
def earlier(tmp_path: Path) -> Callable[[str], Path]:
    """Returns a function that copies an output of version 0.1.0 to the folder `runs`."""

    def copy(name: str) -> Path:
        shutil.copytree(EARLIER / name, tmp_path / "runs")
        return tmp_path / "runs"

    return copy


def rows_of(output: Path) -> list[AnyRow]:
    with LedgerReader(the_ledger(output)) as reader:
        return reader.verify()


def masks_of(output: Path) -> set[str]:
    return {path.stem for path in output.glob("sweeps/*/groups/*/masks/??/*.safetensors")}


@pytest.mark.parametrize("name", [*DONE, *INTERRUPTED])
def test_ledgers_and_artifacts_are_read(earlier: Callable[[str], Path], name: str) -> None:
    output = earlier(name)
    rows = rows_of(output)
    opened = open_ledger(the_ledger(output))
    assert opened.rows == rows
    assert opened.set_aside is None
    opened.writer.close()
    state = GroupState().apply(rows)
    assert state.ended == ("done" if name in DONE else "interrupted")
    (sweep,) = OutputFolder(output).sweeps()
    found = [ArtifactStore(folder) for folder in (OutputFolder(output).store, sweep.group(state.group.group_id).masks)]
    assert sum(store.get(key).num_bytes > 0 for store in found for key in store) > 0


@pytest.mark.parametrize("name", DONE)
def test_a_finished_sweep_is_shown_and_checked_and_its_results_are_not_changed(
    supsup: Supsup, earlier: Callable[[str], Path], name: str
) -> None:
    output = earlier(name)
    before, masks, rows = artifacts(output), masks_of(output), rows_of(output)
    found = supsup("status")
    assert found.code == 0, found.err
    assert "done" in found.out
    found = supsup("report")
    assert found.code == 0, found.err
    found = supsup("fsck")
    assert found.code == 0, found.err
    assert f"verified {len(before) + len(masks)} artifacts and every ledger: found 0 faults" in found.out
    found = supsup("resume", "--local")
    assert found.code == 0, found.err
    found = supsup("gc", "--delete")
    assert found.code == 0, found.err
    assert artifacts(output) == before
    assert masks_of(output) == masks
    after = rows_of(output)
    assert after[: len(rows)] == rows
    assert {row.event.kind for row in after[len(rows) :]} == {"plan", "ended"}  # nothing was computed again


def test_a_plan_of_a_finished_sweep_has_nothing_left_to_do(
    supsup: Supsup, earlier: Callable[[str], Path], tmp_path: Path
) -> None:
    """Points of version 0.1.0 lack the evaluations directly after learning, which are not made up for."""
    output = earlier("done_tasks")
    (record,) = output.glob("sweeps/*/sweep.json")
    config = json.loads(record.read_text())["config"]
    sections = (
        "name",
        "scenario",
        "benchmark",
        "net",
        "method",
        "training",
        "inference",
        "evaluation",
        "grid",
        "seeds",
    )
    (tmp_path / "tasks.yaml").write_text(json.dumps({key: config[key] for key in sections}))
    found = supsup("plan", tmp_path / "tasks.yaml", f"output={output}", "--json")
    assert found.code == 0, found.err
    (group,) = json.loads(found.out)["groups"]
    assert (group["shards"], group["shards_done"]) == (3, 3)
    assert group["evaluations"] == group["evaluations_done"] > 0


@pytest.mark.parametrize("name", INTERRUPTED)
def test_an_interrupted_sweep_is_completed_with_the_results_of_an_uninterrupted_one(
    supsup: Supsup, earlier: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    output = earlier(name)
    before = rows_of(output)
    committed = GroupState().apply(before)
    found = supsup("status")
    assert found.code == 0, found.err
    assert "interrupted" in found.out
    assert supsup("fsck").code == 0
    assert supsup("gc", "--delete").code == 0
    found = supsup("resume", "--local")
    assert found.code == 0, found.err
    state = GroupState().apply(rows_of(output))
    assert rows_of(output)[: len(before)] == before
    assert state.status == "done"
    if name == "interrupted_tasks":
        trained_again = [row["key"] for row in trained(output)]
        assert len(trained_again) == len(set(trained_again)) == 5
        assert state.evaluated.items() >= committed.evaluated.items()
    else:
        assert state.decisions[: len(committed.decisions)] == committed.decisions
        assert len(state.decisions) == 6
        assert nns_science(the_ledger(output))["status"] == "done"
    assert supsup("fsck").code == 0


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        ("lost", b'{"key":"","file":"ledger.corrupt","reason":"set aside"}'),
        ("lost", b'{"key":"ab","task":1,"file":"f","reason":"missing"}'),
        ("lost", b'{"key":"ab","task":null,"file":"f","reason":"missing"}'),
        ("retried", b'{"key":"ab","reason":"its node has died","free":true}'),
        ("split", b'{"key":"ab","reason":"MemoryError"}'),
        ("stalled", b'{"key":"ab","what":"task 0","worker":1,"seconds":70.5,"usual_seconds":null}'),
        ("failed", b'{"key":"ab","what":"round 3 (training)","error":"ZeroDivisionError","traceback":""}'),
        ("cancelled", b'{"key":"ab","task":3}'),
        ("stopped", b'{"num_learned":2}'),
        ("stopped", b'{"num_learned":2,"diverged":"DivergedError: nan"}'),
        ("stopped", b'{"num_learned":0,"reason":"cancelled"}'),
        ("retry", b'{"tasks":[]}'),
        ("retry", b'{"tasks":[1,2]}'),
        ("ended", b'{"status":"failed"}'),
        ("forked", b'{"sweep":"nns-033a9e","group_id":"dc2686eee990","at_task":2}'),
    ],
)
def test_rows_of_kinds_that_these_outputs_do_not_have_are_read(kind: str, payload: bytes) -> None:
    assert event_from_json(kind, payload).kind == kind
