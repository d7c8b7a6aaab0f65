"""Checks a cluster file, the file from which `ray up` starts a cluster. The check needs no network connection.

The check finds settings that Ray refuses, and settings that AWS would refuse only when a machine starts. The check also
finds settings that allow access without authentication, secrets in the file, and missing files. The module also
computes how many workers fit in the cluster.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from orchestrator.base.plain_values import Node
from orchestrator.base.wording import first_line
from orchestrator.spec.sweep_config import Resources
from orchestrator.spec.sweep_text import not_yaml, text_of
from orchestrator.spec.yaml_text import YAML_ERRORS, load_yaml
from supsup_core.errors import InputError
from supsup_core.registry import nearest

_SECRETS = {
    "an AWS access key": re.compile(r"\b(AKIA|ASIA)[0-9A-Z]{16}\b"),
    "an AWS secret key": re.compile(r"(?i)aws_secret_access_key\s*[=:]\s*\S"),
    "a Ray token": re.compile(r"RAY_AUTH_TOKEN=\S"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "a password in an address": re.compile(r"://[^/\s:@]+:[^/\s@]+@"),
}
"""Patterns of secrets. The cluster file is shared, so it must not contain secrets."""

_SET_BY_RAY = ("SubnetIds", "MinCount", "MaxCount")
"""Keys of an AWS node_config that Ray removes or sets itself."""


@dataclass(frozen=True)
class NodeType:
    """One of the node types of a cluster.

    least, most: the minimum and maximum number of nodes of this type; 0 for the type of the head node, which is not
    counted. cpus, gpus: the numbers of CPUs and GPUs of each node; None if the file does not give them. If the file
    gives only the CPUs, gpus is 0.
    """

    name: str
    is_head: bool
    is_spot: bool
    least: int
    most: int
    cpus: float | None
    gpus: float | None


@dataclass(frozen=True)
class ClusterFile:
    """The content of a cluster file. If Ray refuses the file, only `path` and `problems` are set.

    max_workers: the maximum number of nodes, without the head node. problems: one line per problem, which names the key
    and says what to do.
    """

    path: Path
    node_types: tuple[NodeType, ...]
    max_workers: int
    problems: tuple[str, ...]

    def num_workers(self, resources: Resources) -> int | None:
        """Returns how many workers of a sweep fit in the whole cluster at the same time.

        resources: the sweep's resources. Returns None if the file does not give the CPUs of a node type, or does not
        give its GPUs although the workers use GPUs.
        """
        needs_gpu = resources.device == "cuda"
        total, capacities = 0, []
        for kind in self.node_types:
            if kind.cpus is None or (needs_gpu and kind.gpus is None):
                return None
            by_cpu = int(kind.cpus // resources.threads)
            on_one_node = min(by_cpu, int(kind.gpus or 0)) if needs_gpu else by_cpu
            if kind.is_head:
                total += on_one_node
            else:
                capacities.append((on_one_node, kind.most))
        nodes_left = self.max_workers
        for on_one_node, nodes in sorted(capacities, reverse=True):  # the largest nodes first
            used = min(nodes, nodes_left)
            total, nodes_left = total + on_one_node * used, nodes_left - used
        return total


def read_cluster_file(path: Path) -> ClusterFile:
    """Reads and checks a cluster file. Raises InputError if the file cannot be read or is not a YAML mapping."""
    try:
        node = load_yaml(text_of(path), yaml.SafeLoader)
    except YAML_ERRORS as error:
        raise InputError(f"{path}{not_yaml(error)}") from error
    if not isinstance(node, dict):
        raise InputError(f"{path}: a cluster file must be a mapping of keys to values, such as `cluster_name: supsup`")
    ray_problems = list(_ray_problems(node))
    if ray_problems:  # the other checks need a file that fits Ray's schema
        return ClusterFile(path, (), 0, (*ray_problems, *_secret_problems(node)))
    types = tuple(_node_type(name, found, node) for name, found in _node_types(node).items())
    problems = (
        *_node_type_problems(types),
        *_aws_problems(node),
        *_access_problems(node),
        *_secret_problems(node),
        *_setup_problems(node, path),
    )
    return ClusterFile(path, types, int(node.get("max_workers") or 0), problems)


def _node_types(node: Node) -> Node:
    """Returns each node type's part of a cluster file, by the name of the node type."""
    found: Node = node.get("available_node_types") or {}
    return found


def _node_type(name: str, found: Node, node: Node) -> NodeType:
    """Returns a node type. found: the node type's own part of the file. node: the whole file."""
    is_head = name == node.get("head_node_type")
    resources = found.get("resources") or {}
    limits = (found.get("max_workers"), node.get("max_workers"), 0)
    market = (found.get("node_config") or {}).get("InstanceMarketOptions") or {}
    return NodeType(
        name=name,
        is_head=is_head,
        is_spot=isinstance(market, dict) and market.get("MarketType") == "spot",
        least=0 if is_head else int(found.get("min_workers") or 0),
        most=0 if is_head else int(next(limit for limit in limits if limit is not None)),
        cpus=resources.get("CPU"),
        gpus=resources.get("GPU", 0.0 if "CPU" in resources else None),
    )


def _ray_problems(node: Node) -> Iterator[str]:
    """Yields the problems for which `ray up` would refuse the file.

    Validates the file against Ray's schema, first as it is and then completed with Ray's defaults.
    """
    import jsonschema
    import ray.autoscaler
    from ray.autoscaler.sdk import fillout_defaults

    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    try:
        jsonschema.validate(node, schema)
        with contextlib.redirect_stderr(io.StringIO()):  # Ray prints the defaults that it uses
            complete = fillout_defaults(copy.deepcopy(node))
        jsonschema.validate(complete, schema)
    except jsonschema.ValidationError as error:
        yield _schema_problem(error)
    except Exception as error:  # noqa: BLE001 - Ray may raise any exception for a malformed file
        yield f"Ray refuses this file: {type(error).__name__}: {first_line(error)}"
    else:
        yield from _node_count_problems(complete)


def _schema_problem(error: Any) -> str:
    """Returns a jsonschema.ValidationError as one line. For an unknown key, adds the most similar known key."""
    where = ".".join(map(str, error.absolute_path)) or "the file"
    hint = ""
    if error.validator == "additionalProperties":
        known = list(error.schema.get("properties", {}))
        hint = next((nearest(str(key), known) for key in error.instance if key not in known), "")
    return f"{where}: {error.message.splitlines()[0]}{hint}"


def _node_count_problems(complete: Node) -> Iterator[str]:
    """Yields problems of node types and node counts that Ray refuses although Ray's schema allows them.

    complete: the file completed with Ray's defaults.
    """
    types, head, most = _node_types(complete), complete.get("head_node_type"), complete.get("max_workers") or 0
    if head not in types:
        yield (
            f"head_node_type: {head!r} is not a name in available_node_types{nearest(str(head), list(types))}; "
            "use one of those names"
        )
    wanted = sum(found.get("min_workers", 0) for found in types.values())
    if wanted > most:
        yield (
            f"max_workers: {most} is smaller than {wanted}, the sum of `min_workers` over all node types; set "
            f"max_workers to at least {wanted}"
        )


def _node_type_problems(types: tuple[NodeType, ...]) -> Iterator[str]:
    """Yields problems with node counts, with clusters that depend on spot machines, and with a GPU of the head node."""
    if not types:
        return
    workers = [kind for kind in types if not kind.is_head]
    for kind in workers:
        if kind.least > kind.most:
            yield (
                f"available_node_types.{kind.name}: min_workers {kind.least} is more than max_workers {kind.most}; "
                "lower min_workers, or raise max_workers"
            )
    if workers and all(kind.is_spot for kind in workers):
        yield (
            "available_node_types: all workers are spot machines, so training stops if the cloud reclaims all of them; "
            "set min_workers: 1 on a worker type without InstanceMarketOptions"
        )
    elif any(kind.is_spot for kind in workers) and not any(kind.least for kind in workers if not kind.is_spot):
        yield (
            "available_node_types: if the cloud reclaims the spot machines, the cluster can be left without a worker "
            "node; set min_workers: 1 on a worker type that is not a spot machine"
        )
    for kind in types:
        if kind.is_head and (kind.gpus or 0) > 0:
            yield (
                f"available_node_types.{kind.name}: the head node trains nothing, so its GPU would be idle; "
                "use a machine without a GPU"
            )


def _aws_problems(node: Node) -> Iterator[str]:
    """Yields the problems for which AWS would refuse the node_config of a node type.

    Ray does not check node_config, and passes it to AWS only when Ray starts a machine.
    """
    if (node.get("provider") or {}).get("type") != "aws":
        return
    try:
        from botocore.loaders import Loader
        from botocore.model import ServiceModel
    except ImportError:
        yield "provider: node_config cannot be checked without botocore; run `pip install 'supsup[cluster]'`"
        return
    ec2 = ServiceModel(Loader().load_service_model("ec2", "service-2"), "ec2")  # does not read the user's AWS settings
    shape = ec2.operation_model("RunInstances").input_shape
    for name, found in _node_types(node).items():
        config = found.get("node_config") or {}
        request = {key: value for key, value in config.items() if key not in _SET_BY_RAY} | {
            "MinCount": 1,
            "MaxCount": 1,
        }
        yield from _request_problems(request, shape, f"available_node_types.{name}.node_config")


def _request_problems(value: Any, shape: Any, where: str) -> Iterator[str]:
    """Yields the problems for which AWS would refuse one part of a request.

    value: the part of the request. shape: the botocore.model.Shape of the part, which lists the keys and types that AWS
    accepts. where: the dotted key of the part.
    """
    from botocore.validate import ParamValidator

    if shape.type_name == "structure" and isinstance(value, dict):
        for key, inner in value.items():
            if key in shape.members:
                yield from _request_problems(inner, shape.members[key], f"{where}.{key}")
            else:
                hint = nearest(str(key), list(shape.members))
                yield f"{where}.{key}: AWS does not know this key{hint}; correct or remove the key"
        for key in shape.required_members:
            if key not in value:
                yield f"{where}.{key}: is missing, but AWS requires this key; add it"
    elif shape.type_name == "list" and isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _request_problems(inner, shape.member, f"{where}[{number}]")
    elif ParamValidator().validate(value, shape).has_errors():
        yield f"{where}: AWS does not accept {value!r}; set a value of type {shape.type_name}"


def _access_problems(node: Node) -> Iterator[str]:
    """Yields the settings that would allow anybody who can reach a node to run programs on it."""
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        starts = [line for line in node.get(key) or [] if re.search(r"\bray start\b", str(line))]
        if not starts:
            yield (
                f"{key}: has no `ray start` command, and Ray's default command starts Ray without authentication; add "
                "a command with RAY_AUTH_MODE=token and `ray start`"
            )
        for line in starts:
            if "RAY_AUTH_MODE=token" not in line:
                yield (
                    f"{key}: without a token, anybody who can reach a node could run programs on this node; write "
                    "RAY_AUTH_MODE=token before `ray start`"
                )
            if re.search(r"--dashboard-host[= ](0\.0\.0\.0|::)", line):
                yield f"{key}: the dashboard would listen on every network interface; set --dashboard-host=127.0.0.1"
    mounted = any(str(target).endswith("auth_token") for target in node.get("file_mounts") or {})
    if not mounted and not any("RAY_AUTH_TOKEN_PATH" in text for _, text in _texts(node)):
        yield "file_mounts: the nodes would get no authentication token; add `~/.ray/auth_token: ~/.ray/auth_token`"


def _secret_problems(node: Node) -> Iterator[str]:
    """Yields the secrets that the file contains."""
    for where, text in _texts(node):
        for what, pattern in _SECRETS.items():
            if pattern.search(text):
                yield f"{where}: contains {what}; remove it, and use an environment variable or a mounted file"


def _setup_problems(node: Node, path: Path) -> Iterator[str]:
    """Yields a problem for each missing file in `file_mounts`, and one if no setup command has `-c constraints.txt`.

    The file of the authentication token may be missing, because `ray get-auth-token --generate` creates it later.
    """
    for target, source in (node.get("file_mounts") or {}).items():
        found = path.parent / os.path.expanduser(str(source))
        if not str(target).endswith("auth_token") and not os.path.exists(found):
            yield f"file_mounts.{target}: {source} does not exist; create it, or remove this entry"
    if not any("constraints.txt" in text for where, text in _texts(node) if "setup_commands" in where):
        yield "setup_commands: add `-c constraints.txt` to `pip install`, so that every node has the tested versions"


def _texts(value: object, where: str = "") -> Iterator[tuple[str, str]]:
    """Yields every string in nested values, including the keys of mappings, as pairs (dotted key, string)."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield where, str(key)
            yield from _texts(inner, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner, where)
    elif isinstance(value, str):
        yield where, value
