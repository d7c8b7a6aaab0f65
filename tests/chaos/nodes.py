"""A Ray cluster of several nodes on this machine, in a process of its own, which has Ray read the token when it starts.

    python -m tests.chaos.nodes NODES [PORT]

Prints the cluster's address and the ids of its nodes, one CPU each, beside a head without any, whose dashboard is at
PORT; then obeys `kill N` and `add` on standard input until that ends.
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
