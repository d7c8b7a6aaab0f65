"""Reading sweep files: valid and invalid content, and the resulting configuration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.base.plain_values import Node
from orchestrator.spec.sweep_config import (
    Resources,
    SweepConfig,
    defaults,
    read_sweep,
    scales_of,
    sweep_from_node,
)
from orchestrator.sweeps.sweep import open_sweep
from supsup_core.errors import InputError
from tests.conftest import SMALL


def test_a_sweep_is_named_after_its_file_and_gets_all_defaults(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("benchmark: {name: permuted}")
    assert asdict(read_sweep(tmp_path / "mine.yaml", [])) == {**defaults(), "name": "mine"}


def test_numbers_are_read_as_people_write_them(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "net: {name: lenet_300_100}\ntraining: {learning_rate: 1e-3, num_batches: '20'}\nseeds: [3]\n"
    )
    found = read_sweep(tmp_path / "mine.yaml", [])
    assert (found.training["learning_rate"], found.training["num_batches"], found.seeds) == (1e-3, 20, [3])


@pytest.mark.parametrize("text", ["2024_01", "010", "1e3", "true", "1.0"])
def test_text_on_the_command_line_stays_as_typed(sweep_file: Callable[..., Path], text: str) -> None:
    config = read_sweep(sweep_file(data="here"), [f"output={text}", f"name={text}", f"data={text}"])
    assert (config.output, config.name, config.data) == (text, text, text)
    assert read_sweep(sweep_file(data="here"), ["data=null"]).data is None
    assert read_sweep(sweep_file(), ["output='a b'"]).output == "a b"


def test_plain_values_of_a_config_build_an_equal_config(sweep_file: Callable[..., Path]) -> None:
    file = sweep_file(search={"space": {"net.num_outputs": [20, 30]}}, resources={"num_workers": 3}, data="here")
    config = read_sweep(file, [])
    assert isinstance(config.resources, Resources)
    assert sweep_from_node(asdict(config), "sweep.json") == config


def test_plain_values_of_the_wrong_type_are_refused_with_their_key() -> None:
    with pytest.raises(InputError, match=r"sweep\.json: name: is missing"):
        sweep_from_node({}, "sweep.json")
    with pytest.raises(InputError, match=r"sweep\.json: must be a mapping, not a list"):
        sweep_from_node([], "sweep.json")  # type: ignore[arg-type]  # as a damaged file may hold it


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training": 5}, "training: must be a mapping, not 5"),
        ({"resources": ["num_workers"]}, "resources: must be a mapping, not a list"),
        ({"benchmark": "permuted"}, "benchmark: must be a mapping, not 'permuted'"),
        ({"seeds": 3}, "seeds: must be a list, not 3"),
        ({"seeds": [[1]]}, r"seeds\[0\]: must be a single value, not a list"),
        ({"evaluation": {"at": [{"a": 1}]}}, r"evaluation.at\[0\]: must be a single value, not a mapping"),
        ({"evaluation": {"at": [1, "x"]}}, r"evaluation.at\[1\]: Value 'x' of type 'str' could not be converted"),
        ({"grid": {"scenario": "GG"}}, "grid.scenario: must be a list, not 'GG'"),
        ({"variants": {"a": 3}}, "variants.a: must be a mapping, not 3"),
        ({"variants": {"a": {2: 3}}}, "variants.a.2: a key must be text; put 2 in quotes"),
        ({"training": {"num_batches": "???"}}, r"training.num_batches: is missing; write a value in place of \?\?\?"),
        ({"output": {"a": 1}}, "output: must be a single value, not a mapping"),
    ],
)
def test_a_malformed_value_is_named_by_its_key(sweep_file: Callable[..., Path], changes: Node, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_sweep(sweep_file(**changes), [])


def test_null_is_refused_unless_the_key_allows_it_and_dates_are_text(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    benchmark = "benchmark: {name: permuted}\n"
    file.write_text(f"{benchmark}training: null\n")
    with pytest.raises(InputError, match=r"mine\.yaml: training: must be a mapping, not null"):
        read_sweep(file, [])
    file.write_text(f"{benchmark}data: 2020-01-01\n")
    assert read_sweep(file, []).data == "2020-01-01"
    assert read_sweep(file, ["data=2020-01-02"]).data == "2020-01-02"
    file.write_text(f"{benchmark}tracking: null\n")
    assert read_sweep(file, []).tracking is None


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | st.integers(), inner, max_size=3),
    max_leaves=6,
)


def outcome(read: Callable[[], SweepConfig]) -> SweepConfig | str:
    """Returns the configuration, or the text of the InputError."""
    try:
        return read()
    except InputError as error:
        return str(error)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(sorted(defaults())), VALUES, min_size=1, max_size=3))
def test_any_file_gives_a_config_or_a_one_line_error(sweep_file: Callable[..., Path], wrong: Node) -> None:
    found = outcome(lambda: read_sweep(sweep_file(**wrong), []))
    if isinstance(found, str):
        assert "small.yaml" in found
        assert len(found.splitlines()) == 1
    else:
        assert sweep_from_node(asdict(found), "again") == found


SCALES = {"smoke": {"benchmark.num_tasks": 2, "seeds": [0], "net.num_outputs": 20}, "cpu": {"seeds": [0]}}


def test_a_scale_changes_the_whole_sweep_and_overrides_take_precedence_over_it(
    sweep_file: Callable[..., Path],
) -> None:
    file = sweep_file(scales=SCALES, seeds=[0, 1], grid={"net.num_outputs": [30, 40]})
    assert len(open_sweep(file, []).runs()) == 4
    assert len(open_sweep(file, ["scale=paper"]).runs()) == 4
    assert len(open_sweep(file, ["scale=cpu"]).runs()) == 2
    (smoke,) = open_sweep(file, ["scale=smoke"]).runs()
    assert (smoke.experiment.num_tasks, smoke.experiment.net.num_outputs) == (2, 20)
    (changed,) = open_sweep(file, ["scale=smoke", "benchmark.num_tasks=1"]).runs()
    assert (changed.experiment.num_tasks, changed.experiment.net.num_outputs) == (1, 20)


def test_a_file_may_set_its_default_scale_and_each_scale_is_a_separate_sweep(sweep_file: Callable[..., Path]) -> None:
    file = sweep_file(scales=SCALES, scale="smoke")
    assert open_sweep(file, []).config.name == "small_smoke"
    assert open_sweep(file, ["scale=paper"]).config.name == "small"
    assert open_sweep(file, ["name=mine"]).config.name == "mine"


def test_scales_are_listed_in_the_order_of_the_file(sweep_file: Callable[..., Path]) -> None:
    assert scales_of(sweep_file(scales=SCALES)) == ["smoke", "cpu"]
    assert scales_of(sweep_file()) == []


def test_a_config_contains_its_scale_but_not_the_other_scales(sweep_file: Callable[..., Path]) -> None:
    found = read_sweep(sweep_file(scales=SCALES), ["scale=cpu"])
    assert (found.scale, found.scales) == ("cpu", {})


def test_the_defaults_come_from_the_typed_sections() -> None:
    found = defaults()
    assert set(SMALL) <= set(found)
    assert found["training"]["batch_size"] == 128
    assert found["inference"]["rule"] == "one_shot"
