"""Seconds from `supsup resume` of an NNs run to its next committed decision, with few and with many masks.

    python -m bench.resume OUTPUT SWEEP FEW MANY

SWEEP is the full id of a finished NNs run with MANY tasks and `stream.order: blocks`. The benchmark forks the run
after FEW tasks and after MANY tasks, kills each fork after its first commits, and resumes it. Ray takes the same time
to start in both cases, so the difference is the cost of restoring the masks.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path

SEGMENTS = 10
"""Decisions per task in the runs that this benchmark accepts."""

CLI = [sys.executable, "-m", "orchestrator.cli"]


def num_decisions(ledger: Path) -> int:
    """Returns the number of committed decisions; 0 while the ledger has no table yet."""
    with closing(sqlite3.connect(ledger, timeout=30)) as db, suppress(sqlite3.OperationalError):  # no table yet
        return int(db.execute("SELECT count(*) FROM rows WHERE kind = 'decision'").fetchone()[0])
    return 0


def until_more(command: list[str], output: Path, before: set[Path], least: int) -> tuple[Path, float]:
    """Runs a command until a ledger that is not in `before` has more than `least` decisions, then kills the command.

    Returns the ledger and the seconds.
    """
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    made: set[Path] = set()
    while not made or num_decisions(next(iter(made))) <= least:
        assert process.poll() is None, f"{command} ended with {process.returncode}"
        time.sleep(0.02)
        made = set(output.glob("sweeps/*/groups/*/ledger.sqlite")) - before
    seconds = time.perf_counter() - started
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return made.pop(), seconds


def measure(output: Path, sweep: str, at: int, total: int) -> float:
    """Forks the run after `at` tasks, kills and resumes the fork. Returns the seconds of the resume."""
    before = set(output.glob("sweeps/*/groups/*/ledger.sqlite"))
    longer = [f"benchmark.num_tasks={total + 5}", f"budget.num_masks={total + 5}", "commit_every=0.001"]
    fork = [*CLI, "fork", sweep, "--at-task", str(at), "--workers", "1", *longer, f"evaluation.at=[{total + 5}]"]
    ledger, _ = until_more([*fork, f"output={output}"], output, before, SEGMENTS * at)
    time.sleep(3)  # Ray's processes need this time to notice that their driver was killed
    name = ledger.parts[-4]
    return until_more([*CLI, "resume", name, f"output={output}"], output, before, num_decisions(ledger))[1]


if __name__ == "__main__":
    folder, wanted, few, many = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    seconds = {str(at): [measure(folder, wanted, at, many + extra) for extra in range(3)] for at in (few, many)}
    medians = {at: sorted(found)[1] for at, found in seconds.items()}
    print(json.dumps({"seconds": seconds, "beyond": medians[str(many)] - medians[str(few)]}, indent=1))
