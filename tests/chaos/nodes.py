"""A Ray cluster of several nodes on this machine. It runs in a separate process, so that Ray reads the token afresh.

    python -m tests.chaos.nodes '{"num_nodes": 3}'

The cluster has a head, by default without CPUs, and `num_nodes` nodes with one CPU each. The program prints the
cluster's address and the node ids. Then it executes the commands `kill N` and `add` from standard input, until standard
input is closed.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil
import ray
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID
from ray.cluster_utils import Cluster


def free_port() -> int:
    """Returns a port that no program uses now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def autoscaling(node_types: dict[str, Any], scratch: Path) -> dict[str, Any]:
    """Returns the arguments of a head whose autoscaler starts nodes of these types (see tests/chaos/fake_cloud.py)."""
    port = free_port()
    head = {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}
    config = {
        "cluster_name": "fake",
        "max_workers": sum(one["max_workers"] for one in node_types.values()),
        "provider": {
            "type": "external", "module": "tests.chaos.fake_cloud.FakeCloud", "use_node_id_as_ip": True,
            "disable_node_updaters": True, "disable_launch_config_check": True, "head_node_id": FAKE_HEAD_NODE_ID,
            "launch_multiple": True, "gcs_address": f"{ray.util.get_node_ip_address()}:{port}",
        },
        "available_node_types": {"ray.head.default": head, **node_types},
        "head_node_type": "ray.head.default",
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": 10,
        **{key: {} for key in ("auth", "docker", "file_mounts")},
        **{key: [] for key in ("cluster_synced_files", "rsync_exclude", "rsync_filter")},
        **{
            f"{kind}_commands": []
            for kind in (
                "initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray"
            )
        },
    }  # fmt: skip
    file = scratch / "cluster.json"
    file.write_text(json.dumps(config))
    os.environ.update(
        RAY_enable_autoscaler_v2="1", RAY_FAKE_CLUSTER="1", AUTOSCALER_UPDATE_INTERVAL_S="1",
        RAY_CLOUD_INSTANCE_ID=FAKE_HEAD_NODE_ID, RAY_OVERRIDE_NODE_ID_FOR_TESTING=FAKE_HEAD_NODE_ID,
        PYTHONPATH=str(Path(__file__).parents[2]),
    )  # fmt: skip
    return {"autoscaling_config": str(file), "gcs_server_port": port}


def main(
    num_nodes: int = 0,
    head_cpus: int = 0,
    port: int | None = None,
    version: str = "",
    node_types: dict[str, Any] | None = None,
) -> None:
    """port: of the head's dashboard; None means no dashboard. version: of Ray, as the cluster claims it. node_types: of
    the nodes that the cluster's autoscaler may start."""
    ray.__version__ = version or ray.__version__
    head = {"include_dashboard": True, "dashboard_port": port} if port else {"include_dashboard": False}
    with tempfile.TemporaryDirectory() as scratch:
        if node_types:
            head |= autoscaling(node_types, Path(scratch))
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": head_cpus, **head})
        nodes: list[Any] = [cluster.add_node(num_cpus=1) for _ in range(num_nodes)]
        print(json.dumps([cluster.address, *(node.node_id for node in nodes)]), flush=True)
        for line in sys.stdin:
            match line.split():
                case ["kill", number]:
                    cluster.remove_node(nodes[int(number)], allow_graceful=False)
                    print("null", flush=True)
                case ["add"]:
                    nodes.append(cluster.add_node(num_cpus=1))
                    print(json.dumps(nodes[-1].node_id), flush=True)
        session = cluster.head_node.get_session_dir_path()
        cluster.shutdown()
        for process in psutil.process_iter():  # what the autoscaler's nodes have left
            with contextlib.suppress(psutil.Error):
                if any(session in word for word in process.cmdline()):
                    process.kill()


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
