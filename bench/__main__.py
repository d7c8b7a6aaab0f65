"""Measures speed and memory on this machine, and compares the platform with a peer measured in the same run.

    python -m bench [NAME]... [--json FILE]

Without names, all benchmarks that take at most a few minutes are run. `sweep`, `workers`, `streams` and `cluster`
take up to forty minutes in total. Results are printed as tables and stored in docs/results/bench, as one JSON file for
each machine. A new measurement replaces the stored result of the same name.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import json
import os
import platform
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

QUICK = ("floor", "training_step", "together", "scores", "decisions", "top_k", "storage", "packed_forward", "learners")
LONG = ("cluster", "workers", "streams", "sweep")
FOLDER = Path("docs/results/bench")


def machine() -> str:
    """Returns the processor's name and family, its number of cores, and the widest vector instructions that torch uses.

    The family is included because a cloud provider may give processors of several generations the same name.
    """
    told = dict(re.findall(r"^([^\t\n]+)\t+: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE))
    name = told.get("model name", platform.machine())
    family = f" (family {told['cpu family']})" if "cpu family" in told else ""
    return f"{name}{family}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}"


def rows(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, float]]:
    """Yields each number of a nested result with its path, such as `k 100 · ours_ms`."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from rows(inner, (*path, str(name)))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from rows(inner, (*path, str(number)))
    else:
        yield " · ".join(path), value


def main() -> None:
    """Runs the named benchmarks, prints their results, and stores the results as JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", choices=[*QUICK, *LONG, []], metavar="NAME", help=", ".join(QUICK + LONG))
    parser.add_argument("--json", type=Path, help="the JSON file that stores the results")
    arguments = parser.parse_args()
    here = machine()
    file = arguments.json or FOLDER / f"{re.sub('[^a-z0-9]+', '-', here.lower()).strip('-')}.json"
    kept = json.loads(file.read_text()) if file.exists() else {"machine": here, "results": {}}
    for name in arguments.names or QUICK:
        module = importlib.import_module(f"bench.{name}")
        print(f"\n{name}: {(module.__doc__ or '').partition(chr(10))[0]}", flush=True)
        started = time.perf_counter()
        found = module.measure()
        for where, value in rows(found):
            print(f"  {where:44} {value:>14.6g}", flush=True)
        kept["results"][name] = {
            "measured": datetime.date.today().isoformat(),
            "torch": torch.__version__,
            "seconds": round(time.perf_counter() - started, 1),
            "found": found,
        }
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(kept, indent=1) + "\n")
    print(f"\nresults stored in {file}")


if __name__ == "__main__":
    main()
