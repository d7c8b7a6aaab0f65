"""Commands on two real machine kinds: torch uses fewer instruction sets if an environment variable says so."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.base.output_folder import OutputFolder
from orchestrator.records.artifact_store import ArtifactStore
from tests.outputs import artifacts

Call = Callable[..., tuple[int, str, str]]


@pytest.mark.long
def test_one_kind_gives_the_same_bytes_and_results_of_two_kinds_say_so(
    call: Call, sweep_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The second sweep reuses two tasks of the first sweep, and trains a third task on another machine kind."""
    first = sweep_file(benchmark={"name": "permuted", "base": "digits", "num_tasks": 2}, evaluation={"at": [2]})
    for output in ("mixed", "same"):
        code, _, err = call("sweep", first, f"output={output}", "--local")
        assert code == 0, err
    assert artifacts(tmp_path / "mixed") == artifacts(tmp_path / "same")

    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")
    second = sweep_file("second.yaml", name="second", evaluation={"at": [3]})
    for output in ("mixed", "other"):
        code, out, err = call("sweep", second, f"output={output}", "--local")
        assert code == 0, err
        assert (": computed on 2 machine kinds; results of one machine kind" in out) == (output == "mixed")
    code, out, err = call("status", "second", "output=mixed")
    assert code == 0, err
    assert "MIXED  computed on 2 machine kinds" in out
    for name, wanted in (("small", 1), ("second", 2)):
        _, out, _ = call("status", name, "output=mixed", "--json")
        (group,) = json.loads(out)["groups"]
        assert len({kind["kernels"]["instructions"] for kind in group["machines"]}) == wanted

    stores = [ArtifactStore(OutputFolder(tmp_path / output).store) for output in ("same", "other")]
    trained = [key for key in stores[0] if stores[0].get(key).facts.kind == "trained"]
    accuracies = [[store.get(key).facts.accuracy for key in sorted(trained)] for store in stores]
    assert len(trained) == 2
    assert accuracies[1] == pytest.approx(accuracies[0], abs=0.05)
