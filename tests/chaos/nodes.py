"""A Ray cluster of several nodes on this machine. It runs in a separate process, so that Ray reads the token afresh.

    python -m tests.chaos.nodes NODES [PORT]

The cluster has a head without CPUs and NODES nodes with one CPU each. The head's dashboard listens on PORT. The program
prints the cluster's address and the node ids. Then it executes the commands `kill N` and `add` from standard input,
until standard input is closed.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from ray.cluster_utils import Cluster


def main(num_nodes: int, port: int | None = None) -> None:
    head = {"include_dashboard": True, "dashboard_port": port} if port else {"include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **head})
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
    cluster.shutdown()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
