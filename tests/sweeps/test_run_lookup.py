"""Finding a run by the words of its name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.base.output_folder import OutputFolder
from orchestrator.sweeps.run_lookup import FoundRun, all_runs, choose_run, find_run
from orchestrator.sweeps.sweep import open_sweep
from supsup_core.errors import InputError
from tests.local_runs import run_sweep


@pytest.fixture
def runs(sweep_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[FoundRun]:
    """The runs of two sweeps that have not begun. Some names are part of other names."""
    monkeypatch.chdir(tmp_path)
    names = ("transfer", "no transfer", "b=1", "b=16")
    variants = {name: {"net.num_outputs": 30 + number} for number, name in enumerate(names)}
    for file in (
        sweep_file(variants=variants, scenario="GG", seeds=[1, 10]),
        sweep_file("other.yaml", name="other", grid={"scenario": ["GG", "GNu"]}),
    ):
        sweep = open_sweep(file, [])
        sweep.save(sweep.plan())
    return all_runs(OutputFolder(tmp_path / "runs"))


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("transfer GG seed=1", "transfer GG seed=1"),
        ("no transfer GG seed=1", "no transfer GG seed=1"),
        ("b=1 seed=10", "b=1 GG seed=10"),
        ("b=16 seed=1", "b=16 GG seed=1"),
        ("other GNu", "GNu one_shot entropy seed=0"),
        ("entropy", "GNu one_shot entropy seed=0"),
        ("GNu one_s", "GNu one_shot entropy seed=0"),
    ],
)
def test_a_full_name_precedes_whole_words_and_whole_words_precede_parts_of_words(
    runs: list[FoundRun], words: str, name: str
) -> None:
    assert choose_run(words, runs).run.name == name


def test_a_run_is_found_by_its_full_name_and_by_its_id(runs: list[FoundRun]) -> None:
    for run in runs:
        assert choose_run(run.name, runs) == run
    unique = [run for run in runs if sum(other.run.run_id == run.run.run_id for other in runs) == 1]
    assert unique
    for run in unique:
        assert choose_run(run.run.run_id[:10], runs) == run


@pytest.mark.parametrize(("words", "problem"), [("small", "several runs match"), ("small GX", "no run matches")])
def test_words_that_match_no_run_or_several_runs_are_refused_with_the_names(
    runs: list[FoundRun], words: str, problem: str
) -> None:
    with pytest.raises(InputError, match=f"'{words}': {problem}; .* one of: '"):
        choose_run(words, runs)


def test_a_run_has_its_evaluation_points(
    sweep_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="contains no sweep"):
        find_run("GG", OutputFolder(tmp_path / "runs"))
    run_sweep(open_sweep(sweep_file(grid={"scenario": ["GG", "GNu"]}), []))
    found = find_run("GG", OutputFolder(tmp_path / "runs"))
    assert sorted(found.points) == [1, 3]
    assert 0 < found.points[3]["accuracy"] <= 1
    assert found.run in found.group.runs


def test_a_damaged_sweep_is_skipped_and_reported(
    runs: list[FoundRun], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    output = OutputFolder(tmp_path / "runs")
    first, second = output.sweeps()
    second.sweep_file.write_text("{")
    assert {run.sweep.sweep_id for run in all_runs(output)} == {first.sweep_id}
    assert f"{second.sweep_id}" in capsys.readouterr().err
    node = first.sweep_file.read_text()
    first.sweep_file.write_text(node.replace('"lenet_300_100"', '"no_such_net"'))
    with pytest.raises(InputError):
        all_runs(output)
    assert runs
