"""Seconds from `supsup resume` to the first round of NNs that is trained and committed, with few masks and with many.

    python -m bench.resume OUTPUT SWEEP FEW MANY     # a finished NNs run of MANY tasks, in blocks; SWEEP: its whole id

The run is forked after FEW and after MANY tasks to go on for longer, killed at once, and resumed. Ray's start is the
same in both; what MANY takes longer is what its masks cost.
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
"""Decisions a task, in the sweeps that this is for."""

CLI = [sys.executable, "-m", "orchestrator.cli"]


def num_decisions(ledger: Path) -> int:
    """Decisions that are committed."""
    with closing(sqlite3.connect(ledger, timeout=30)) as db, suppress(sqlite3.OperationalError):  # it is being made
        return int(db.execute("SELECT count(*) FROM rows WHERE kind = 'decision'").fetchone()[0])
    return 0


def until_more(command: list[str], output: Path, before: set[Path], least: int) -> tuple[Path, float]:
    """Run a command until the ledger that is not in `before` has more than `least` decisions, then kill it: the
    ledger, and the seconds."""
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
    """Seconds of a resume after `at` tasks."""
    before = set(output.glob("sweeps/*/groups/*/ledger.sqlite"))
    longer = [f"benchmark.num_tasks={total + 5}", f"budget.num_masks={total + 5}", "commit_every=0.001"]
    fork = [*CLI, "fork", sweep, "--at-task", str(at), "--workers", "1", *longer, f"evaluation.at=[{total + 5}]"]
    ledger, _ = until_more([*fork, f"output={output}"], output, before, SEGMENTS * at)
    time.sleep(3)  # Ray's processes notice that their driver is gone
    name = ledger.parts[-4]
    return until_more([*CLI, "resume", name, f"output={output}"], output, before, num_decisions(ledger))[1]


if __name__ == "__main__":
    folder, wanted, few, many = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    seconds = {str(at): [measure(folder, wanted, at, many + extra) for extra in range(3)] for at in (few, many)}
    medians = {at: sorted(found)[1] for at, found in seconds.items()}
    print(json.dumps({"seconds": seconds, "beyond": medians[str(many)] - medians[str(few)]}, indent=1))
