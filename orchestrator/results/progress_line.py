"""Shows the progress of a running sweep: a progress bar in a terminal, and plain lines if there is no terminal."""

from __future__ import annotations

import sys
import time
from typing import final

from orchestrator.base.wording import duration, say
from orchestrator.results.status import SweepStatus

PLAIN_SECONDS = 5.0
"""The minimum number of seconds between two plain lines."""


def line(status: SweepStatus) -> str:
    """Returns the progress of a sweep as one line of text."""
    parts = [
        f"shards {status.shards_done}/{status.shards}",
        f"evaluations {status.evaluations_done}/{status.evaluations}",
    ]
    if status.tasks_per_second is not None and status.shards_done < status.shards:
        parts.append(f"{status.tasks_per_second:.2f} tasks/s")
    masks = [group.masks for group in status.groups if group.masks is not None]
    if masks:
        parts.append(f"{sum(masks)} masks")
    if status.accuracy is not None:
        parts.append(f"accuracy so far {100 * status.accuracy:.2f} %")
    unknown = status.evaluations_done < status.evaluations and not any(g.evaluate_seconds for g in status.groups)
    parts.append(
        f"ETA {duration(status.eta)}"
        + (" plus the time of the evaluations" if unknown and status.eta is not None else "")
    )
    return " · ".join(parts)


@final
class ProgressLine:
    """A context manager that shows a sweep's status on standard error."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._last_line = ""
        self._last_time = 0.0

    def __enter__(self) -> ProgressLine:
        if self._terminal:
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[text]}"),
                console=Console(stderr=True),
            )  # fmt: skip
            self._task = self._bar.add_task("starting", total=1, text="")
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._terminal:
            self._bar.stop()

    def update(self, status: SweepStatus) -> None:
        """Show the status of the sweep.

        Without a terminal, prints only changed lines, at most one line per PLAIN_SECONDS seconds.
        """
        text = line(status)
        if self._terminal:
            self._bar.update(
                self._task, description=status.sweep_id, text=text,
                completed=status.shards_done + status.evaluations_done,
                total=status.shards + status.evaluations,
            )  # fmt: skip
        elif text != self._last_line and time.monotonic() - self._last_time >= PLAIN_SECONDS:
            say(text, file=sys.stderr, flush=True)
            self._last_line, self._last_time = text, time.monotonic()
