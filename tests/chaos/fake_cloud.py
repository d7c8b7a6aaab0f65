"""A cloud for Ray's autoscaler that starts its machines as processes on this machine: late, or never."""

from __future__ import annotations

import time
from typing import Any

from ray.autoscaler._private.fake_multi_node.node_provider import FakeMultiNodeProvider
from ray.autoscaler.node_launch_exception import NodeLaunchException


class FakeCloud(FakeMultiNodeProvider):  # type: ignore[misc]  # Ray has no types
    """Ray's own fake, in which the node_config of a node type may have `seconds` to wait, or an `error`."""

    def create_node_with_resources_and_labels(
        self, node_config: dict[str, Any], tags: Any, count: int, resources: Any, labels: Any
    ) -> None:
        """Starts nodes. Raises NodeLaunchException if the node type has an error."""
        if "error" in node_config:
            raise NodeLaunchException("InsufficientInstanceCapacity", node_config["error"], None)
        time.sleep(node_config.get("seconds", 0))
        super().create_node_with_resources_and_labels(node_config, tags, count, resources, labels)
