"""A sweep's log: one JSON object on each line, and the text that `supsup logs` prints."""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.base.folder_lock import owned
from orchestrator.base.output_folder import OutputFolder, SweepFolder
from orchestrator.records.rows import EvaluationDue, JobStalled, RoundsCommitted, Row, SegmentDecided, TasksMet
from orchestrator.results.event_log import LogFile, follow, log_row
from tests.outputs import wait_for
from tests.records.samples import EVENTS


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    found = OutputFolder(tmp_path).sweep("small-123456")
    found.path.mkdir(parents=True)
    return found


@contextlib.contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Writes the program's log to a file while the block runs."""
    logger, handler = logging.getLogger("supsup"), LogFile(path)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
        handler.close()


def lines(folder: SweepFolder) -> list[dict[str, Any]]:
    return [json.loads(line) for line in folder.log_file.read_text().splitlines()]


def test_every_event_except_those_of_nns_rounds_is_a_line_with_its_facts(folder: SweepFolder) -> None:
    with logging_to(folder.log_file):
        for number, event in enumerate(EVENTS, start=1):
            log_row("small-123456", "0123456789ab", Row(number, 0, event))
    found = lines(folder)
    silent = {kind.kind for kind in (SegmentDecided, TasksMet, EvaluationDue, RoundsCommitted)} | {"forked", "retry"}
    assert {line["event"] for line in found} == {event.kind for event in EVENTS} - silent
    for line in found:
        assert {"time", "level", "message", "sweep", "group"} <= set(line)
        assert None not in line.values()
    trained = [line for line in found if line["event"] == "trained"]
    assert "reused from the store" in trained[0]["message"]
    assert trained[0]["accuracy"] == 0.5
    assert "worker 1 in 0.5 s" in trained[1]["message"]
    assert {line["level"] for line in found if line["event"] == JobStalled.kind} == {"warning"}


def test_a_message_with_a_traceback_is_one_line(folder: SweepFolder) -> None:
    with logging_to(folder.log_file):
        try:
            raise ValueError("no\nluck")
        except ValueError:
            logging.getLogger("supsup").exception("it failed")
    (line,) = lines(folder)
    assert line["level"] == "error"
    assert "ValueError: no\nluck" in line["traceback"]


def test_a_full_disk_is_reported_once_and_raises_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with logging_to(Path("/dev/full")):
        for number in range(3):
            logging.getLogger("supsup").info("message %d", number)
    reported = [line for line in capsys.readouterr().err.splitlines() if "the log cannot be written" in line]
    assert len(reported) == 1


def test_a_log_is_printed_as_text_even_if_it_contains_malformed_lines(
    folder: SweepFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    node = {"time": "2026-01-02T03:04:05.678+00:00", "level": "warning", "message": "a stall", "group": "0123456789ab"}
    plain = {"time": "2026-01-02T03:04:06.678+00:00", "level": "info", "message": "it starts", "traceback": "Trace"}
    folder.log_file.write_text(f'{json.dumps(node)}\n{json.dumps(plain)}\nof another version\n[1]\n{{"time"')
    follow(folder)
    assert capsys.readouterr().out.splitlines() == [
        "2026-01-02T03:04:05 WARNING 01234567 a stall",
        "2026-01-02T03:04:06 it starts",
        "Trace",
        "of another version",
        "[1]",
        '{"time"',
    ]


def test_a_log_of_any_bytes_is_printed_without_terminal_escapes(
    folder: SweepFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("supsup"), "propagate", False)  # pytest-xdist cannot send this text
    with logging_to(folder.log_file):
        logging.getLogger("supsup").warning("\x1b]0;title\x07 of the file a\udcffb")
    with folder.log_file.open("ab") as file:
        file.write(b"\x1b[2Jno JSON \xff\n")
    follow(folder)
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith(r"WARNING \x1b]0;title\x07 of the file a\udcffb")
    assert second == r"\x1b[2Jno JSON \xff"


def test_a_log_is_followed_while_a_process_runs_the_sweep(
    folder: SweepFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.log_file.write_text("first\nsec")
    printed: list[str] = []

    def shown() -> list[str]:
        printed.append(capsys.readouterr().out)
        return [text for text in ["".join(printed)] if "first" in text]

    with owned(folder.path):
        thread = threading.Thread(target=follow, args=(folder,))
        thread.start()
        wait_for(shown)
        with folder.log_file.open("a") as file:
            file.write("ond\nthird\n")
        wait_for(lambda: [text for text in ["".join([*printed, *shown()])] if "third" in text])
        assert thread.is_alive()
    thread.join(timeout=30)
    assert not thread.is_alive()
    assert "".join(printed).splitlines() == ["first", "second", "third"]
