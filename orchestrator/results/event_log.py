"""Writes a sweep's log, a file with one JSON object per line, and prints it for `supsup logs`."""

from __future__ import annotations

import datetime
import json
import logging
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO, final

from orchestrator.base.folder_lock import holder_of
from orchestrator.base.output_folder import SweepFolder
from orchestrator.base.wording import count, say
from orchestrator.records.rows import (
    AnyRow,
    ArtifactLost,
    Event,
    GroupPlanned,
    GroupStopped,
    JobFailed,
    JobRetried,
    JobSplit,
    JobStalled,
    LaunchEnded,
    PointCompleted,
    ShardTrained,
    TaskCancelled,
    TaskEvaluated,
)

log = logging.getLogger("supsup")

_FOLLOW_SECONDS = 0.5


@final
class JsonLines(logging.Formatter):
    """Formats a log record as a JSON object: its time, level and message, and the items of `extra={"fields": …}`."""

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.datetime.fromtimestamp(record.created, datetime.UTC).isoformat(timespec="milliseconds")
        node = {"time": when, "level": record.levelname.lower(), "message": record.getMessage()}
        node |= getattr(record, "fields", {})
        if record.exc_info:
            node["traceback"] = self.formatException(record.exc_info)
        return json.dumps(node, ensure_ascii=False)


@final
class LogFile(logging.FileHandler):
    """Writes log records as JSON lines to a file. If writing fails, for example on a full disk, prints one message and
    lets the sweep continue."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            path, delay=True, encoding="utf-8", errors="backslashreplace"
        )  # file names may contain any bytes
        self.setFormatter(JsonLines())
        self._reported = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record. If the file cannot be opened, print the error, unless an error was printed before."""
        try:
            super().emit(record)
        except OSError as error:
            self._report(error)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name is logging's
        """Print the current error, unless an error was printed before."""
        self._report(sys.exc_info()[1])

    def close(self) -> None:
        """Close the file. If the file cannot be closed, print the error, unless an error was printed before."""
        try:
            super().close()
        except OSError as error:
            self._report(error)

    def _report(self, error: BaseException | None) -> None:
        if not self._reported:
            say(
                f"supsup: {self.baseFilename}: the log cannot be written ({error}); the sweep continues",
                file=sys.stderr,
            )
        self._reported = True


@dataclass(frozen=True)
class _Line:
    """The content of a log line: a message for people, and fields for programs."""

    message: str
    fields: Mapping[str, object] = field(default_factory=dict)


def log_row(sweep_id: str, group_id: str, row: AnyRow) -> None:
    """Log one row of a ledger. Decisions of scenario NNs are not logged; `supsup decisions` lists them."""
    line = _line_of(row.event)
    if line is None:
        return
    fields: dict[str, object] = {"sweep": sweep_id, "group": group_id, "event": row.event.kind}
    fields |= {name: value for name, value in line.fields.items() if value is not None}
    level = logging.WARNING if isinstance(row.event, JobStalled) else logging.INFO  # a WARNING is printed too
    log.log(level, line.message, extra={"fields": fields})


def _line_of(event: Event) -> _Line | None:
    """Returns the log line of an event, or None if events of this kind are not logged."""
    match event:
        case ShardTrained() | TaskEvaluated():
            return _result_line(event)
        case PointCompleted(run_id=run_id, num_learned=n):
            accuracy = 100 * event.metrics["accuracy"]
            return _Line(f"after {count(n, 'task')}: accuracy {accuracy:.2f} %", {"run_id": run_id, "num_learned": n})
        case ArtifactLost(key=key, reason=reason):
            return _Line(
                f"{event.file}: {reason}; the missing results are computed again", {"key": key, "reason": reason}
            )
        case JobRetried(key=key, reason=reason):
            return _Line(f"a worker died during a job: {reason}", {"key": key, "reason": reason})
        case JobSplit(key=key, reason=reason):
            text = f"the tasks of a job did not fit into memory together, so the job was split: {reason}"
            return _Line(text, {"key": key, "reason": reason})
        case JobStalled(key=key, what=what, worker=worker, seconds=seconds):
            fields = {"key": key, "what": what, "worker": worker, "seconds": seconds}
            return _Line(describe_stalled(event), fields)
        case JobFailed(key=key, what=what, error=error):
            fields = {"key": key, "what": what, "error": error, "traceback": event.traceback}
            return _Line(f"{what} failed: {error}", fields)
        case TaskCancelled(key=key, task=task):
            return _Line(f"task {task} was cancelled", {"key": key})
        case GroupStopped(num_learned=n, reason=reason):
            return _Line(
                f"the training group was stopped after {count(n, 'task')}", {"num_learned": n, "reason": reason}
            )
        case LaunchEnded(status=status):
            return _Line(f"the training group ended: {status}", {"status": status})
        case GroupPlanned():
            return _Line("the training group starts")
        case _:
            return None


def _result_line(event: ShardTrained | TaskEvaluated) -> _Line:
    """Returns the log line of a task that was trained or evaluated."""
    worker = f" by worker {event.worker}" if event.worker is not None else ""
    how = f"{worker} in {event.seconds:.1f} s" if event.seconds else " earlier (reused from the store)"
    fields: dict[str, object] = {
        "key": event.key,
        "worker": event.worker,
        "seconds": event.seconds,
        "task": event.facts.task,
    }
    if isinstance(event, TaskEvaluated):
        return _Line(f"task {event.facts.task} evaluated{how}", fields)
    accuracy = event.facts.accuracy
    result = f", accuracy {100 * accuracy:.2f} %" if accuracy is not None else ""
    return _Line(f"task {event.facts.task} trained{how}{result}", {**fields, "accuracy": accuracy})


def describe_stalled(event: JobStalled) -> str:
    """Returns one line of text that describes a stalled job."""
    usual = event.usual_seconds
    others = f"similar jobs take {usual:.1f} s" if usual else "no similar job is done yet"
    return f"{event.what} has run on worker {event.worker} for {event.seconds:.0f} s; {others}"


def follow(folder: SweepFolder) -> None:
    """Print a sweep's log in readable form. Waits for further lines while a process on this machine runs the sweep."""
    with folder.log_file.open(encoding="utf-8", errors="backslashreplace") as file:
        for line in _lines(file, folder):
            try:
                node = json.loads(line)
                level = "" if node["level"] == "info" else f" {node['level'].upper()}"
                group = f" {node['group'][:8]}" if "group" in node else ""
                say(f"{node['time'][:19]}{level}{group} {node['message']}")
                if "traceback" in node:
                    say(node["traceback"])
            except (ValueError, KeyError, TypeError):
                say(line, end="")  # the line is incomplete or was written by an earlier version
            sys.stdout.flush()


def _lines(file: TextIO, folder: SweepFolder) -> Iterator[str]:
    """Yields the lines of a file, including lines that are added while a process runs the sweep."""
    pending = ""
    while True:
        running = holder_of(folder.path) is not None
        while text := file.readline():
            pending += text
            if pending.endswith("\n"):
                yield pending
                pending = ""
        if not running:
            if pending:
                yield pending
            return
        time.sleep(_FOLLOW_SECONDS)
