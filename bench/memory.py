"""Peak memory of all processes of a sweep, compared with Ray running the same number of empty actors.

    python -m bench.memory sweeps/nns_quick.yaml [key=value]... output=DIR

First the benchmark measures one Ray Tune trial with empty actors. RSS counts a shared page once in every process that
maps it. PSS divides a shared page among these processes.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time

import psutil

SAMPLE_SECONDS = 1.0

EMPTY = """
import time, ray
from ray import tune

@ray.remote(num_cpus=0)
class Empty:
    def ready(self):
        return True

def trial(config):
    actors = [Empty.remote() for _ in range({num_actors})]
    ray.get([actor.ready.remote() for actor in actors])
    time.sleep(15)

ray.init(address="local", include_dashboard=False, log_to_driver=False)
tune.Tuner(tune.with_resources(trial, {{"CPU": 1}}), run_config=tune.RunConfig(verbose=0)).fit()
"""


def family(pid: int) -> list[psutil.Process]:
    """Returns a process and all its descendants; an empty list if the process has ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    return []


def peaks(command: list[str]) -> dict[str, float]:
    """Runs a command to its end. Returns the peak of its processes' total memory in MB, sampled every second."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    found = {"rss_mb": 0.0, "pss_mb": 0.0}
    biggest: dict[str, float] = {}
    while process.poll() is None:
        rss = pss = 0.0
        for member in family(process.pid):
            with contextlib.suppress(psutil.Error):
                memory = member.memory_full_info()
                rss += memory.rss / 1e6
                pss += memory.pss / 1e6
                name = (member.cmdline() or [member.name()])[0].split("/")[-1]
                biggest[name] = max(biggest.get(name, 0.0), memory.rss / 1e6)
        found = {"rss_mb": max(found["rss_mb"], rss), "pss_mb": max(found["pss_mb"], pss)}
        time.sleep(SAMPLE_SECONDS)
    assert process.returncode == 0, f"{command} ended with {process.returncode}"
    return found | {f"rss_mb of {name}": peak for name, peak in sorted(biggest.items()) if peak > 50}


def measure(arguments: list[str], num_workers: int = 1) -> dict[str, dict[str, float]]:
    """Returns the peak memory of Ray with empty actors and of the sweep, and their difference."""
    empty = peaks([sys.executable, "-c", EMPTY.format(num_actors=num_workers)])
    sweep = peaks([sys.executable, "-m", "orchestrator.cli", "sweep", *arguments, "--workers", str(num_workers)])
    beyond = {key: sweep[key] - empty[key] for key in ("rss_mb", "pss_mb")}
    return {"ray alone": empty, "the sweep": sweep, "beyond Ray": beyond}


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1:]), indent=1))
