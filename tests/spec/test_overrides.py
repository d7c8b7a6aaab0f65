"""Overrides and scales take precedence over the file, the grid, the variants and a search."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from orchestrator.spec.overrides import overlap, parse_overrides
from orchestrator.spec.sweep_config import read_sweep, with_overrides
from orchestrator.sweeps.sweep import open_sweep
from supsup_core.errors import InputError


def test_values_are_read_as_yaml_with_numbers_as_people_write_them() -> None:
    found = parse_overrides(["a.b=1", "c=1e-4", "d=[1e3, x, {e: 2e0}]", "f=null", "g=", "h=a=b", "i=v1"])
    assert found == {"a.b": 1, "c": 1e-4, "d": [1e3, "x", {"e": 2.0}], "f": None, "g": None, "h": "a=b", "i": "v1"}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seeds", "command line: 'seeds' is not of the form key=value; write, for example, benchmark.num_tasks=10"),
        ("=3", "command line: '=3' is not of the form key=value"),
        ("seeds=[", r"command line: seeds: '\[' is not a valid YAML value"),
        ("output=${HOME}", r"command line: output: \$\{…\} is not supported; write the value itself"),
    ],
)
def test_an_override_that_cannot_be_read_is_named(override: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_overrides([override])


@pytest.mark.parametrize(
    ("one", "other", "overlapping"),
    [("net", "net", True), ("net", "net.width", True), ("net.width", "net", True), ("net", "nets", False)],
)
def test_keys_overlap_if_one_is_a_prefix_of_the_other(one: str, other: str, overlapping: bool) -> None:
    assert overlap(one, other) is overlapping


def test_an_override_takes_precedence_over_variants_and_grid(sweep_file: Callable[..., Path]) -> None:
    variants = {
        "iCaRL": {"method": {"name": "icarl", "num_exemplars": 90}},
        "BatchE": {"method": {"name": "batch_e"}, "training.optimizer": "adam", "training": {"learning_rate": 0.1}},
    }
    file = sweep_file(scenario="GG", variants=variants)
    (icarl,) = open_sweep(file, ["only=iCaRL", "method.num_exemplars=50"]).runs()
    assert icarl.experiment.method.num_exemplars == 50  # type: ignore[attr-defined]
    (batch_e,) = open_sweep(file, ["only=BatchE", "training.learning_rate=0.3"]).runs()
    recipe = batch_e.experiment.training
    assert (recipe.optimizer, recipe.learning_rate, recipe.num_batches) == ("adam", 0.3, 30)
    (plain,) = open_sweep(file, ["only=BatchE", "method={name: upper_bound}"]).runs()
    assert plain.experiment.node["method"] == {"name": "upper_bound"}
    axes = sweep_file(scenario="GG", grid={"method": [{"name": "icarl"}, {"name": "icarl", "num_exemplars": 80}]})
    both = open_sweep(axes, ["method.num_exemplars=50"]).runs()
    assert {run.experiment.method.num_exemplars for run in both} == {50}  # type: ignore[attr-defined]


def test_an_override_replaces_a_grid_axis(sweep_file: Callable[..., Path]) -> None:
    file = sweep_file(grid={"inference.objective": ["H", "G"]})
    (group,) = open_sweep(file, ["inference.objective=energy"]).plan()
    assert [run.experiment.inference.objective for run in group.runs] == ["energy"]


def test_an_override_sets_one_axis_of_the_grid_or_of_a_search(
    sweep_file: Callable[..., Path], search_file: Path
) -> None:
    file = sweep_file("grid.yaml", grid={"net.num_outputs": [30, 40]})
    runs = open_sweep(file, ["grid.training.learning_rate=[1e-4,1e-3]", "grid.net.num_outputs=[50]"]).runs()
    assert [run.experiment.training.learning_rate for run in runs] == [1e-4, 1e-3]
    assert {run.experiment.net.num_outputs for run in runs} == {50}
    config = read_sweep(search_file, ["search.space.training.learning_rate={low: 1, high: 2}", "search.num_trials=2"])
    assert config.search is not None
    assert config.search.space == {"training.learning_rate": {"low": 1, "high": 2}}
    with pytest.raises(InputError, match=r"command line: grid\.training\.learning_rate: must be a list, not 0\.5"):
        read_sweep(file, ["grid.training.learning_rate=0.5"])


def test_an_override_of_a_components_name_drops_the_keys_of_the_old_component(sweep_file: Callable[..., Path]) -> None:
    node = {"name": "image_folder", "folder": "cats", "num_classes": 3}
    file = sweep_file(
        benchmark={"name": "split", "base": node, "num_tasks": 3},
        scales={"smoke": {"benchmark": {"base": {"name": "digits", "enlarge": 2}, "num_tasks": 1}}},
    )
    (run,) = open_sweep(file, ["scale=smoke"]).runs()
    assert run.experiment.node["benchmark"]["base"] == {"name": "digits", "enlarge": 2, "channels": 1}
    assert run.experiment.num_tasks == 1


def test_a_scale_takes_precedence_over_variants(sweep_file: Callable[..., Path]) -> None:
    variants = {"long": {"training.num_batches": 900}, "short": {"training.num_batches": 90}}
    file = sweep_file(scales={"smoke": {"training.num_batches": 9}}, variants=variants)
    found = open_sweep(file, ["scale=smoke"]).runs()
    assert [run.experiment.training.num_batches for run in found] == [9, 9]


def test_a_scale_given_as_a_mapping_does_not_change_the_variants_other_keys(
    sweep_file: Callable[..., Path],
) -> None:
    variants = {"a": {"training.learning_rate": 0.5, "training.num_batches": 900}}
    file = sweep_file(scales={"smoke": {"training": {"num_batches": 9, "batch_size": 32}}}, variants=variants)
    (run,) = open_sweep(file, ["scale=smoke"]).runs()
    training = run.experiment.training
    assert (training.learning_rate, training.num_batches, training.batch_size) == (0.5, 9, 32)


@pytest.fixture
def search_file(sweep_file: Callable[..., Path]) -> Path:
    """A sweep file with a search over one key with two choices."""
    return sweep_file(search={"space": {"training.learning_rate": [1e-4, 1e-3]}})


def test_a_key_that_is_set_is_not_searched(search_file: Path) -> None:
    both = "search.space={training.learning_rate: {low: 0.1, high: 0.2, log: true}, net.num_outputs: [20, 30]}"
    search_file.write_text(yaml.safe_dump(asdict(read_sweep(search_file, [both, "search.num_trials=2"]))))
    found = read_sweep(search_file, ["training.learning_rate=0.05"])
    assert found.search is not None
    assert found.search.space == {"net.num_outputs": [20, 30]}
    assert found.training["learning_rate"] == 0.05


def test_an_override_replaces_all_fields_of_a_search_range(search_file: Path) -> None:
    first = "search.space={training.learning_rate: {low: 1.0e-5, high: 1.0, log: true}}"
    second = "search.space={training.learning_rate: {low: 1e-4, high: 1e-3}}"
    search_file.write_text(yaml.safe_dump(asdict(read_sweep(search_file, [first, "search.num_trials=2"]))))
    found = read_sweep(search_file, [second]).search
    assert found is not None
    assert found.space == {"training.learning_rate": {"low": 1e-4, "high": 1e-3}}


def test_an_override_can_add_values_to_a_search_space(search_file: Path) -> None:
    wider = read_sweep(search_file, ["search.space={training.learning_rate: [1, 2, 3]}"])
    assert wider.search is not None
    assert wider.search.space == {"training.learning_rate": [1, 2, 3]}


def test_an_override_may_add_a_search(sweep_file: Callable[..., Path]) -> None:
    found = read_sweep(sweep_file(), ["search={space: {net.num_outputs: [20, 30]}}", "search.held_out=0.2"]).search
    assert found is not None
    assert (found.space, found.held_out) == ({"net.num_outputs": [20, 30]}, 0.2)


def test_overrides_apply_in_their_order_and_each_is_checked(sweep_file: Callable[..., Path]) -> None:
    found = read_sweep(sweep_file(), ["training={num_batches: 7}", "training.batch_size=16", "training.num_batches=8"])
    assert (found.training["num_batches"], found.training["batch_size"]) == (8, 16)
    with pytest.raises(InputError, match="command line: training: must be a mapping, not 5"):
        read_sweep(sweep_file(), ["training=5", "training.num_batches=8"])
    with pytest.raises(InputError, match="command line: seeds: must be a list, not a mapping"):
        read_sweep(sweep_file(), ["seeds.0=5"])


def test_changes_of_one_variant_do_not_reach_another(sweep_file: Callable[..., Path]) -> None:
    base = {"name": "split", "base": {"name": "digits"}}
    file = sweep_file(variants={"a": {"benchmark": base}, "b": {"benchmark": base}})
    changes = ["benchmark.base={name: digits, channels: 3}", "variants.a.benchmark.base={name: mnist}"]
    found = read_sweep(file, changes).variants
    assert found["a"]["benchmark"]["base"] == {"name": "mnist"}
    assert found["b"]["benchmark"]["base"] == {"name": "digits", "channels": 3}


def test_overrides_have_the_same_effect_on_a_config_as_on_its_file(sweep_file: Callable[..., Path]) -> None:
    file = sweep_file(scales={"smoke": {"benchmark.num_tasks": 2}}, grid={"net.num_outputs": [30, 40]})
    config = read_sweep(file, ["scale=smoke"])
    changed = with_overrides(config, ["net.num_outputs=20"])
    assert changed == read_sweep(file, ["scale=smoke", "net.num_outputs=20"])
    assert (changed.name, changed.scale, changed.benchmark["num_tasks"]) == ("small_smoke", "smoke", 2)
