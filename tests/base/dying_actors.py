"""Kills Ray actors in each way that `ray_death_of` distinguishes, in a separate process with a separate Ray cluster.

    python -m tests.base.dying_actors

Prints a JSON object that maps each cause to [reason, node_lost, out_of_memory].
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable

import ray
from ray.cluster_utils import Cluster
from ray.exceptions import ActorUnavailableError, OutOfMemoryError, RayActorError

from orchestrator.base.library_internals import RayDeath, ray_death_of

ALWAYS_FULL = {"RAY_memory_usage_threshold": "0.0001", "RAY_memory_monitor_refresh_ms": "100"}
"""With this environment, Ray's memory monitor kills every worker of a node."""


@ray.remote(num_cpus=1, max_restarts=0)
class Sleeper:
    """An actor that is killed while it sleeps."""

    def pid(self) -> int:
        return os.getpid()

    def sleep(self) -> None:
        time.sleep(120)


def death_by(kill: Callable[[int], object], *resources: str) -> RayDeath:
    """Kills an actor and returns the death as Ray reports it.

    kill: receives the actor's process id. resources: custom resources that the actor's node must have.
    """
    actor = Sleeper.options(resources=dict.fromkeys(resources, 1)).remote()
    try:
        kill(ray.get(actor.pid.remote(), timeout=60))
        reference = actor.sleep.remote()
        while True:
            try:
                ray.get(reference, timeout=60)
            except ActorUnavailableError:
                reference = actor.__ray_ready__.remote()  # Ray reports the cause only to a later call
    except (RayActorError, OutOfMemoryError) as error:
        return ray_death_of(error)


def main() -> None:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    node = cluster.add_node(num_cpus=2, resources={"node": 2})
    cluster.add_node(num_cpus=1, resources={"full": 1}, env_vars=ALWAYS_FULL)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    deaths = {
        "killed": death_by(lambda pid: os.kill(pid, 9), "node"),
        "node died": death_by(lambda pid: cluster.remove_node(node, allow_graceful=False), "node"),
        "out of memory": death_by(lambda pid: None, "full"),
    }
    print(json.dumps(deaths), flush=True)
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main()
