"""A sweep's log: one JSON object a line, for programs, and the same told to people."""

from __future__ import annotations

import datetime
import json
import logging
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orchestrator.base.folder_lock import holder_of
from orchestrator.records.ledger import Row

log = logging.getLogger("supsup")

NAME = "supsup.log"
"""Its file, in the sweep's folder."""

_FOLLOW_SECONDS = 0.5

_SAID = (
    "trained",
    "evaluated",
    "point",
    "lost",
    "retried",
    "split",
    "stalled",
    "failed",
    "cancelled",
    "stopped",
    "ended",
    "plan",
)
"""Kinds of rows that are told; the decisions of NNs have a verb of their own."""

_FIELDS = ("key", "what", "worker", "seconds", "run_id", "num_learned", "reason", "error", "traceback", "status")


class JsonLines(logging.Formatter):
    """A record as one JSON object: time, level, message, and what `extra={"fields": …}` gave it."""

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.datetime.fromtimestamp(record.created, datetime.UTC).isoformat(timespec="milliseconds")
        node = {"time": when, "level": record.levelname.lower(), "message": record.getMessage()}
        node |= getattr(record, "fields", {})
        if record.exc_info:
            node["traceback"] = self.formatException(record.exc_info)
        return json.dumps(node, ensure_ascii=False)


class LogFile(logging.FileHandler):
    """A file of such lines. Where it cannot be written, as on a full disk, this is told once, and the work goes on."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.setFormatter(JsonLines())
        self._told = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name is logging's
        self._tell(sys.exc_info()[1])

    def close(self) -> None:
        try:
            super().close()
        except OSError as error:
            self._tell(error)

    def _tell(self, error: BaseException | None) -> None:
        if not self._told:
            print(f"supsup: {self.baseFilename}: the log cannot be written ({error})", file=sys.stderr)
        self._told = True


def tell(sweep_id: str, group_id: str, row: Row) -> None:
    """Log a row of a ledger, with what it is about in fields of their own."""
    if row.kind not in _SAID:
        return
    payload = row.payload
    facts = payload.get("facts") or {}
    fields = {"sweep": sweep_id, "group": group_id, "event": row.kind}
    fields |= {name: payload[name] for name in _FIELDS if payload.get(name) is not None}
    fields |= {name: facts[name] for name in ("task", "accuracy") if facts.get(name) is not None}
    level = logging.WARNING if row.kind == "stalled" else logging.INFO  # a warning goes to the terminal too
    log.log(level, _words(row, facts), extra={"fields": fields})


def _words(row: Row, facts: dict[str, Any]) -> str:
    payload = row.payload
    worker = f" by worker {payload['worker']}" if payload.get("worker") is not None else ""
    took = f" in {payload['seconds']:.1f} s" if payload.get("seconds") else ", found"
    match row.kind:
        case "trained":
            accuracy = facts.get("accuracy")
            told = f", accuracy {100 * accuracy:.2f} %" if accuracy is not None else ""
            return f"task {facts.get('task')} trained{worker}{took}{told}"
        case "evaluated":
            return f"task {facts.get('task')} evaluated{worker}{took}"
        case "point":
            return f"{payload['num_learned']} tasks: accuracy {100 * payload['metrics']['accuracy']:.2f} %"
        case "stalled":
            return stalled_words(payload)
        case "failed":
            return f"{payload['what']} failed: {payload['error']}"
        case "lost":
            return f"{payload['file']}: {payload['reason']}; made again"
        case "retried" | "split":
            return f"{row.kind}: {payload['reason']}"
        case "ended":
            return f"the group ended: {payload['status']}"
        case "cancelled":
            return f"task {payload['task']} was cancelled"
        case "stopped":
            return f"the group was given up after {payload['num_learned']} tasks"
        case _:
            return "the group begins"


def stalled_words(payload: dict[str, Any]) -> str:
    """What a row `stalled` says."""
    usual = payload["usual_seconds"]
    told = f"others took {usual:.1f} s" if usual else "no other has been done"
    return f"{payload['what']} has taken worker {payload['worker']} {payload['seconds']:.0f} s, and {told}"


def show(folder: Path) -> None:
    """Print a sweep's log as people read it; while the sweep runs here, as it grows."""
    path = folder / NAME
    with path.open() as file:
        for line in _lines(file, folder):
            try:
                node = json.loads(line)
                level = "" if node["level"] == "info" else f" {node['level'].upper()}"
                group = f" {node['group'][:8]}" if "group" in node else ""
                print(f"{node['time'][:19]}{level}{group} {node['message']}")
                if "traceback" in node:
                    print(node["traceback"])
            except (ValueError, KeyError, TypeError):
                print(line, end="")  # of an earlier version, or cut short
            sys.stdout.flush()


def _lines(file: Any, folder: Path) -> Iterator[str]:
    """The lines of a file, to the end or, while somebody writes it, beyond."""
    pending = ""
    while True:
        running = holder_of(folder) is not None
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
