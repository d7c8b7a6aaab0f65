"""Cluster files, checked without a connection."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.cluster.cluster_file import read_cluster_file
from supsup_core.errors import InputError

FILE = Path(__file__).parents[2] / "ray_cluster.yaml"
Node = dict[str, Any]


def changed(tmp_path: Path, change: Callable[[Node], object]) -> Path:
    """The project's own file with something changed, beside what it mounts."""
    node = yaml.safe_load(FILE.read_text())
    change(node)
    path = tmp_path / "cluster.yaml"
    path.write_text(yaml.safe_dump(node))
    return path


def put(*keys: str, value: Any) -> Callable[[Node], object]:
    def change(node: Node) -> None:
        for key in keys[:-1]:
            node = node[key]
        node[keys[-1]] = value

    return change


def test_the_projects_own_file_is_sound(supsup: Callable[..., Any]) -> None:
    found = supsup("cluster", "check", FILE)
    assert (found.code, found.err) == (0, "")
    assert "gpu_spot: 4 CPU and 1 GPU; 0 to 7 of them, spot" in found.out


WORKER = ("available_node_types", "gpu_on_demand")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (put("max_worker", value=3), "did you mean 'max_workers'"),
        (put("max_workers", value="many"), "max_workers: 'many' is not of type 'integer'"),
        (put("provider", value={}), "'type' is a required property"),
        (put(*WORKER, "node_config", "InstanceTyp", value="x"), "node_config.InstanceTyp: no such key at AWS"),
        (put(*WORKER, "node_config", "InstanceMarketOption", value={}), "did you mean 'InstanceMarketOptions'"),
        (
            put(*WORKER, "node_config", "BlockDeviceMappings", value=[{"Ebs": {"VolumeSiz": 8}}]),
            "node_config.BlockDeviceMappings[0].Ebs.VolumeSiz: no such key at AWS; did you mean 'VolumeSize'",
        ),
        (put(*WORKER, "node_config", "ImageId", value=7), "node_config.ImageId: AWS takes no 7 here"),
        (put(*WORKER, "min_workers", value=0), "so that work always goes on"),
        (put(*WORKER, "min_workers", value=9), "smaller than the sum of `min_workers`"),
        (put(*WORKER, "node_config", "InstanceMarketOptions", value={"MarketType": "spot"}), "all workers are spot"),
        (put("available_node_types", "head", "resources", value={"GPU": 1}), "without a GPU"),
        (put("head_start_ray_commands", value=["ray start --head"]), "without RAY_AUTH_MODE=token"),
        (put("worker_start_ray_commands", value=[]), "worker_start_ray_commands: missing"),
        (
            put("head_start_ray_commands", value=["RAY_AUTH_MODE=token ray start --head --dashboard-host=0.0.0.0"]),
            "listen on every interface",
        ),
        (put("file_mounts", value={}), "no node is given the token"),
        (put("setup_commands", value=["pip install ."]), "-c constraints.txt"),
        (put("setup_commands", value=["export RAY_AUTH_TOKEN=abc"]), "setup_commands: holds a Ray token"),
        (put("cluster_name", value="AKIAABCDEFGHIJKLMNOP"), "cluster_name: holds an AWS access key"),
        (put("setup_commands", value=["git clone https://me:secret@host/x"]), "a password in an address"),
        (put("file_mounts", "~/x", value="nowhere/at-all"), "nowhere/at-all is not there"),
    ],
)
def test_what_is_wrong_is_told_with_its_key(
    supsup: Callable[..., Any], tmp_path: Path, change: Callable[[Node], object], told: str
) -> None:
    found = supsup("cluster", "check", changed(tmp_path, change))
    assert found.code == 2
    assert told in found.err
    assert "Traceback" not in found.err


def test_a_sweep_is_held_against_the_cluster(supsup: Callable[..., Any], sweep_file: Callable[..., Path]) -> None:
    file = sweep_file(seeds=[0, 1, 2])
    asked = ["resources.device=cuda", "resources.num_workers=4"]
    found = supsup("cluster", "check", FILE, file, *asked, "benchmark.num_tasks=4")
    assert found.code == 0
    assert "3 training groups of 4 workers of 1 CPU and a GPU each: 2 at once" in found.out
    found = supsup("cluster", "check", FILE, file, *asked, "benchmark.num_tasks=2")
    assert "3 training groups of 2 workers of 1 CPU and a GPU each: 3 at once" in found.out
    found = supsup("cluster", "check", FILE, file, "resources.device=cuda", "resources.num_workers=9")
    assert found.code == 2
    assert "there is room for 8" in found.err
    assert "its GPUs would idle" in supsup("cluster", "check", FILE, file).out


def test_what_is_no_mapping_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    for text in ("- a", "a: [", "\x00", "&a [*a"):
        path.write_text(text)
        with pytest.raises(InputError, match=r"cluster\.yaml"):
            read_cluster_file(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_cluster_file(tmp_path / "nowhere.yaml")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from(sorted(yaml.safe_load(FILE.read_text())))


@settings(max_examples=30)
@given(st.dictionaries(KEYS, VALUES, min_size=1, max_size=3))
def test_whatever_stands_in_it_the_check_ends_in_words(tmp_path_factory: pytest.TempPathFactory, wrong: Node) -> None:
    path = tmp_path_factory.getbasetemp() / "wrong.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(FILE.read_text()), **wrong}))
    try:
        problems = read_cluster_file(path).problems
    except InputError as error:
        problems = (str(error),)
    assert all(problem and "\n" not in problem for problem in problems)
