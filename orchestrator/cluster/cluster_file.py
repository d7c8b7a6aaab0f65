"""A Ray cluster's file, checked without a connection: what Ray would refuse, what it would let pass and a cloud refuse,
what would let strangers in, and whether a sweep has room."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from orchestrator.spec.strict_merge import Node
from orchestrator.spec.sweep_config import Resources, not_yaml
from supsup_core.errors import InputError
from supsup_core.registry import nearest

_SECRETS = {
    "an AWS access key": re.compile(r"\b(AKIA|ASIA)[0-9A-Z]{16}\b"),
    "an AWS secret key": re.compile(r"(?i)aws_secret_access_key\s*[=:]\s*\S"),
    "a Ray token": re.compile(r"RAY_AUTH_TOKEN=\S"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "a password in an address": re.compile(r"://[^/\s:@]+:[^/\s@]+@"),
}
"""What must not stand in a file that is shared."""

_RAYS_OWN = ("SubnetIds", "MinCount", "MaxCount")
"""Keys of an AWS node_config that Ray takes for itself, or sets."""


@dataclass(frozen=True)
class NodeType:
    """One of a cluster's types of nodes. `cpus`, `gpus`: of each; None where the file does not say."""

    name: str
    is_head: bool
    is_spot: bool
    least: int
    most: int
    cpus: float | None
    gpus: float | None


@dataclass(frozen=True)
class ClusterFile:
    """A cluster's file as far as it can be understood. `problems`: one line each, with the key and the remedy."""

    path: Path
    node_types: tuple[NodeType, ...]
    max_workers: int
    problems: tuple[str, ...]

    def num_workers(self, resources: Resources) -> int | None:
        """How many workers of a sweep the whole cluster could hold at once; None where the file does not say."""
        needs_gpu = resources.device == "cuda"
        rooms: list[tuple[int, int]] = []
        for kind in self.node_types:
            if kind.cpus is None or (needs_gpu and kind.gpus is None):
                return None
            room = int(kind.cpus // resources.threads)
            rooms.append((min(room, int(kind.gpus or 0)) if needs_gpu else room, 1 if kind.is_head else kind.most))
        total, nodes_left = 0, self.max_workers + 1
        for room, nodes in sorted(rooms, reverse=True):  # of the largest as many as there may be
            taken = min(nodes, nodes_left)
            total, nodes_left = total + room * taken, nodes_left - taken
        return total


def read_cluster_file(path: Path) -> ClusterFile:
    """Read and check a file. InputError where it is no mapping in YAML at all."""
    try:
        node = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise InputError(f"{path}{not_yaml(error)}") from error
    if not isinstance(node, dict):
        raise InputError(f"{path}: a cluster file is a mapping, such as `cluster_name: supsup`")
    ray_says = list(_refused_by_ray(node))
    if ray_says:  # nothing else can be told of a file of another form
        return ClusterFile(path, (), 0, (*ray_says, *_secrets(node)))
    types = tuple(_node_type(name, found, node) for name, found in _types(node).items())
    problems = (*_sizes(types), *_cloud(node), *_doors(node), *_secrets(node), *_mounts(node, path))
    return ClusterFile(path, types, int(node.get("max_workers") or 0), problems)


def _types(node: Node) -> Node:
    found: Node = node.get("available_node_types") or {}
    return found


def _refused_by_ray(node: Node) -> Iterator[str]:
    """What `ray up` itself would stop at."""
    import jsonschema
    import ray.autoscaler
    from ray.autoscaler._private.util import fillout_defaults, validate_config

    try:
        with contextlib.redirect_stderr(io.StringIO()):  # Ray prints what it fills out
            jsonschema.validate(
                node, json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
            )
            validate_config(fillout_defaults(copy.deepcopy(node)))
    except jsonschema.ValidationError as error:
        where = ".".join(map(str, error.absolute_path)) or "the file"
        unknown = re.search(r"\('([^']+)' was unexpected\)", error.message)
        known = list((error.schema if isinstance(error.schema, dict) else {}).get("properties", {}))
        hint = nearest(unknown.group(1), known) if unknown else ""
        yield f"{where}: {error.message.splitlines()[0]}{hint}"
    except Exception as error:  # noqa: BLE001 - Ray raises whatever a file of another form makes it raise
        yield f"the file: Ray refuses it: {type(error).__name__}: {(str(error) or '?').splitlines()[0]}"


def _node_type(name: str, found: Node, node: Node) -> NodeType:
    is_head = name == node.get("head_node_type")
    resources = found.get("resources") or {}
    market = (found.get("node_config") or {}).get("InstanceMarketOptions") or {}
    return NodeType(
        name=name,
        is_head=is_head,
        is_spot=isinstance(market, dict) and market.get("MarketType") == "spot",
        least=0 if is_head else int(found.get("min_workers") or 0),
        most=0 if is_head else int(found.get("max_workers") or node.get("max_workers") or 0),
        cpus=resources.get("CPU"),
        gpus=resources.get("GPU", 0.0 if "CPU" in resources else None),
    )


def _sizes(types: tuple[NodeType, ...]) -> Iterator[str]:
    """Numbers of nodes that contradict each other, or leave nothing where spot machines are taken away."""
    if not types:
        return
    workers = [kind for kind in types if not kind.is_head]
    for kind in workers:
        if kind.least > kind.most:
            yield f"available_node_types.{kind.name}: min_workers {kind.least} is more than max_workers {kind.most}"
    if workers and all(kind.is_spot for kind in workers):
        yield (
            "available_node_types: all workers are spot machines, and nothing goes on when those are taken away; "
            "give one type without InstanceMarketOptions min_workers: 1"
        )
    elif any(kind.is_spot for kind in workers) and not any(kind.least for kind in workers if not kind.is_spot):
        yield "available_node_types: give the type that is no spot machine min_workers: 1, so that work always goes on"
    for kind in types:
        if kind.is_head and (kind.gpus or 0) > 0:
            yield f"available_node_types.{kind.name}: the head trains nothing; take a machine without a GPU"


def _cloud(node: Node) -> Iterator[str]:
    """What the cloud would refuse within node_config, which Ray passes on as it stands."""
    if (node.get("provider") or {}).get("type") != "aws":
        return
    try:
        from botocore.session import Session
        from botocore.validate import ParamValidator
    except ImportError:
        yield "provider: to check node_config for AWS, `pip install 'supsup[cluster]'`"
        return
    shape = Session().get_service_model("ec2").operation_model("RunInstances").input_shape
    for name, found in _types(node).items():
        config = found.get("node_config") or {}
        asked = {key: value for key, value in config.items() if key not in _RAYS_OWN} | {"MinCount": 1, "MaxCount": 1}
        report = ParamValidator().validate(asked, shape)
        where = f"available_node_types.{name}.node_config"
        for kind, at, told in report._errors:
            key = f"{where}{at}"
            if kind == "unknown field":
                wrong = told["unknown_param"]
                yield f"{key}.{wrong}: no such key at AWS{nearest(wrong, list(told['valid_names']))}"
            elif kind == "missing required field":
                yield f"{key}.{told['required_name']}: missing, and AWS asks for it"
            else:
                yield f"{key}: AWS takes no {told.get('param')!r} here ({kind})"


def _doors(node: Node) -> Iterator[str]:
    """What would let anybody in who can reach a node."""
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        starts = [line for line in node.get(key) or [] if re.search(r"\bray start\b", str(line))]
        if not starts:
            yield f"{key}: missing, and Ray's own start lets anybody in; start it with RAY_AUTH_MODE=token"
        for line in starts:
            if "RAY_AUTH_MODE=token" not in line:
                yield f"{key}: without RAY_AUTH_MODE=token anybody who reaches a node may run what they like on it"
            if re.search(r"--dashboard-host[= ](0\.0\.0\.0|::)", line):
                yield f"{key}: the dashboard would listen on every interface; leave --dashboard-host=127.0.0.1"
    mounted = any(str(target).endswith("auth_token") for target in node.get("file_mounts") or {})
    if not mounted and not any("RAY_AUTH_TOKEN_PATH" in text for _, text in _texts(node)):
        yield "file_mounts: no node is given the token; add `~/.ray/auth_token: ~/.ray/auth_token`"


def _secrets(node: Node) -> Iterator[str]:
    for where, text in _texts(node):
        for what, pattern in _SECRETS.items():
            if pattern.search(text):
                yield f"{where}: holds {what}, and this file is shared; leave it to the environment or a mounted file"


def _mounts(node: Node, path: Path) -> Iterator[str]:
    """Files that are to be copied and are not there. The token is made before the first start, not before a check."""
    for target, source in (node.get("file_mounts") or {}).items():
        found = path.parent / Path(str(source)).expanduser()
        if not str(target).endswith("auth_token") and not found.exists():
            yield f"file_mounts.{target}: {source} is not there"
    if not any("constraints.txt" in text for where, text in _texts(node) if "setup_commands" in where):
        yield "setup_commands: install with `-c constraints.txt`, so that every node has the versions that were tested"


def _texts(value: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """Every text of the file, keys included, with where it stands."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield where, str(key)
            yield from _texts(inner, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner, where)
    elif isinstance(value, str):
        yield where, value
