"""`supsup cluster check` checks the cluster file of `ray up` without a connection to the cloud."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.base.plain_values import Node
from orchestrator.cluster.cluster_file import ClusterFile, NodeType, read_cluster_file
from orchestrator.spec.sweep_config import Resources
from supsup_core.errors import InputError

FILE = Path(__file__).parents[2] / "ray_cluster.yaml"


def changed(tmp_path: Path, change: Callable[[Node], object]) -> Path:
    """Returns the path of a changed copy of the project's cluster file."""
    node = yaml.safe_load(FILE.read_text())
    change(node)
    path = tmp_path / "cluster.yaml"
    path.write_text(yaml.safe_dump(node))
    return path


def put(*keys: str, value: Any) -> Callable[[Node], object]:
    """Returns a change that sets the value at a path of keys."""

    def change(node: Node) -> None:
        for key in keys[:-1]:
            node = node[key]
        node[keys[-1]] = value

    return change


def test_the_file_of_this_project_has_no_problems(supsup: Callable[..., Any]) -> None:
    found = supsup("cluster", "check", FILE)
    assert (found.code, found.err) == (0, "")
    assert "gpu_spot: 4 CPU and 1 GPU; 0 to 7 nodes on spot machines" in found.out


def test_the_check_does_not_read_the_users_aws_settings(
    supsup: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home" / ".aws").mkdir(parents=True)
    (tmp_path / "home" / ".aws" / "config").write_text("[[[ damaged")
    monkeypatch.setenv("AWS_PROFILE", "missing")
    found = supsup("cluster", "check", FILE)
    assert (found.code, found.err) == (0, "")


WORKER = ("available_node_types", "gpu_on_demand")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (put("max_worker", value=3), "did you mean 'max_workers'"),
        (put("max_workers", value="many"), "max_workers: 'many' is not of type 'integer'"),
        (put("provider", value={}), "'type' is a required property"),
        (put(*WORKER, "node_config", "InstanceTyp", value="x"), "node_config.InstanceTyp: AWS does not know this key"),
        (put(*WORKER, "node_config", "InstanceMarketOption", value={}), "did you mean 'InstanceMarketOptions'"),
        (
            put(*WORKER, "node_config", "BlockDeviceMappings", value=[{"Ebs": {"VolumeSiz": 8}}]),
            "node_config.BlockDeviceMappings[0].Ebs.VolumeSiz: AWS does not know this key (did you mean 'VolumeSize'",
        ),
        (
            put(*WORKER, "node_config", "BlockDeviceMappings", value="large"),
            "node_config.BlockDeviceMappings: AWS does not accept 'large'; set a value of type list",
        ),
        (put(*WORKER, "node_config", "ImageId", value=7), "node_config.ImageId: AWS does not accept 7"),
        (
            put(*WORKER, "node_config", "LicenseSpecifications", value=[7]),
            "LicenseSpecifications[0]: AWS does not accept 7",
        ),
        (put("head_node_type", value="haed"), "'haed' is not a name in available_node_types (did you mean 'head'?)"),
        (put("provider", "type", value="awss"), "Ray refuses this file: NotImplementedError"),
        (put(*WORKER, "min_workers", value=0), "if the cloud reclaims the spot machines"),
        (put(*WORKER, "min_workers", value=9), "is smaller than 9, the sum of `min_workers`"),
        (put(*WORKER, "node_config", "InstanceMarketOptions", value={"MarketType": "spot"}), "all workers are spot"),
        (put("available_node_types", "head", "resources", value={"GPU": 1}), "without a GPU"),
        (put("head_start_ray_commands", value=["ray start --head"]), "write RAY_AUTH_MODE=token before `ray start`"),
        (put("worker_start_ray_commands", value=[]), "worker_start_ray_commands: has no `ray start` command"),
        (
            put("head_start_ray_commands", value=["RAY_AUTH_MODE=token ray start --head --dashboard-host=0.0.0.0"]),
            "listen on every network interface",
        ),
        (put("file_mounts", value={}), "the nodes would get no authentication token"),
        (put("setup_commands", value=["pip install ."]), "-c constraints.txt"),
        (put("setup_commands", value=["export RAY_AUTH_TOKEN=abc"]), "setup_commands: contains a Ray token"),
        (put("cluster_name", value="AKIAABCDEFGHIJKLMNOP"), "cluster_name: contains an AWS access key"),
        (put("setup_commands", value=["git clone https://me:secret@host/x"]), "a password in an address"),
        (put("file_mounts", "~/x", value="nowhere/at-all"), "nowhere/at-all does not exist"),
    ],
)
def test_a_problem_is_printed_with_its_key(
    supsup: Callable[..., Any], tmp_path: Path, change: Callable[[Node], object], problem: str
) -> None:
    found = supsup("cluster", "check", changed(tmp_path, change))
    assert found.code == 2
    assert problem in found.err
    assert "Traceback" not in found.err


def test_a_sweep_is_checked_against_the_capacity_of_the_cluster(
    supsup: Callable[..., Any], sweep_file: Callable[..., Path]
) -> None:
    file = sweep_file(seeds=[0, 1, 2])
    asked = ["resources.device=cuda", "resources.num_workers=4"]
    found = supsup("cluster", "check", FILE, file, *asked, "benchmark.num_tasks=4")
    assert found.code == 0
    assert "3 training groups with 4 workers, each with 1 CPU and one GPU; 2 of the groups run" in found.out
    found = supsup("cluster", "check", FILE, file, *asked, "benchmark.num_tasks=2")
    assert "3 training groups with 2 workers, each with 1 CPU and one GPU; 3 of the groups run" in found.out
    found = supsup("cluster", "check", FILE, file, "resources.device=cuda", "resources.num_workers=9")
    assert found.code == 2
    assert "the cluster has room for 8 workers; raise max_workers" in found.err
    assert "GPUs would be idle" in supsup("cluster", "check", FILE, file).out


def test_a_node_type_with_zero_nodes_adds_no_capacity(tmp_path: Path) -> None:
    def close(node: Node) -> None:
        for name, found in node["available_node_types"].items():
            if name != node["head_node_type"]:
                found.update(min_workers=0, max_workers=0)

    found = read_cluster_file(changed(tmp_path, close))
    assert [one.most for one in found.node_types] == [0] * len(found.node_types)
    assert found.num_workers(Resources(device="cuda")) == 0


def test_a_file_that_is_not_a_mapping_is_refused(tmp_path: Path) -> None:
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
def test_the_check_of_any_file_ends_with_one_line_for_each_problem(
    tmp_path_factory: pytest.TempPathFactory, wrong: Node
) -> None:
    path = tmp_path_factory.getbasetemp() / "wrong.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(FILE.read_text()), **wrong}))
    try:
        problems = read_cluster_file(path).problems
    except InputError as error:
        problems = (str(error),)
    assert all(problem and "\n" not in problem for problem in problems)


def kind(name: str, most: int, cpus: float | None, gpus: float | None = 0.0) -> NodeType:
    return NodeType(name, name == "head", False, 0, most, cpus, gpus)


@pytest.mark.parametrize(
    ("types", "max_workers", "resources", "workers"),
    [
        ([kind("head", 0, 4)], 0, {}, 4),
        ([kind("head", 0, 4)], 0, {"threads": 3}, 1),
        ([kind("head", 0, 2), kind("small", 9, 2), kind("large", 2, 8)], 3, {}, 2 * 8 + 2 * 2),
        ([kind("head", 0, 2), kind("gpu", 5, 8, 2)], 3, {"device": "cuda"}, 3 * 2),
        ([kind("head", 0, 2), kind("gpu", 5, 8, None)], 3, {"device": "cuda"}, None),
        ([kind("head", 0, None)], 0, {}, None),
    ],
)
def test_the_capacity_of_the_cluster_is_the_sum_over_its_largest_nodes(
    types: list[NodeType], max_workers: int, resources: dict[str, Any], workers: int | None
) -> None:
    found = ClusterFile(FILE, tuple(types), max_workers, ())
    assert found.num_workers(Resources(**resources)) == workers
