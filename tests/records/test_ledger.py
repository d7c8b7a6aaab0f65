"""The ledger: committed means kept, one writer, and state is its replay."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.records.group_state import GroupState
from orchestrator.records.ledger import (
    FencedError,
    LedgerReader,
    LedgerWriter,
    Row,
    open_ledger,
    set_aside,
    snapshot_path,
)
from supsup_core.errors import CorruptError, SupSupError


def test_rows_come_back_in_order_with_times_that_never_decrease(tmp_path: Path) -> None:
    writer = LedgerWriter(tmp_path / "ledger.sqlite")
    for number in range(5):
        writer.append("trained", key=str(number), facts={"task": number})
    with LedgerReader(tmp_path / "ledger.sqlite") as reader:
        rows = reader.rows()
        assert [row.seq for row in rows] == [1, 2, 3, 4, 5]
        assert [row.payload["key"] for row in reader.rows(after=3)] == ["3", "4"]
    assert [row.time_ms for row in rows] == sorted(row.time_ms for row in rows)
    assert rows == writer.rows()
    writer.close()


def test_a_second_writer_fences_the_first(tmp_path: Path) -> None:
    first = LedgerWriter(tmp_path / "ledger.sqlite")
    first.append("retried", key="a", reason="")
    second = LedgerWriter(tmp_path / "ledger.sqlite")
    with pytest.raises(FencedError):
        first.append("retried", key="b", reason="")
    second.append("retried", key="c", reason="")
    assert [row.payload["key"] for row in second.rows()] == ["a", "c"]
    first.close()
    second.close()


def test_what_append_returned_survives_kill_9(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from orchestrator.records.ledger import LedgerWriter\n"
        "w = LedgerWriter(Path(sys.argv[1]))\n"
        "n = 0\n"
        "while True:\n"
        "    print(w.append('retried', key=str(n), reason='x' * 500).seq, flush=True); n += 1\n"
    )
    path = tmp_path / "ledger.sqlite"
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        last = [int(process.stdout.readline()) for _ in range(40)][-1]
        os.kill(process.pid, 9)
        last = max([last, *(int(line) for line in process.stdout.read().splitlines() if line)])
    with LedgerReader(path) as reader:
        seqs = [row.seq for row in reader.rows()]
    assert seqs[:last] == list(range(1, last + 1))


@pytest.mark.parametrize("content", [b"", b"not a database at all", b"SQLite format 3\x00" + b"\xff" * 200])
def test_a_file_that_is_no_ledger_is_found_and_can_be_set_aside(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(content)
    if content:
        with pytest.raises(CorruptError, match="ledger"):
            LedgerWriter(path)
        with LedgerReader(path) as reader, pytest.raises(CorruptError):
            reader.rows()
        assert set_aside(path).read_bytes() == content
    LedgerWriter(path).close()


def test_a_ledger_that_is_not_there_reads_as_empty(tmp_path: Path) -> None:
    with LedgerReader(tmp_path / "none.sqlite") as reader:
        assert reader.rows() == []


KEYS = st.sampled_from("abcd")
PAYLOADS = st.one_of(
    st.builds(lambda key, at: ("trained", {"key": key, "at": at}), KEYS, st.integers(0, 9)),
    st.builds(lambda key: ("evaluated", {"key": key}), KEYS),
    st.builds(lambda key: ("lost", {"key": key, "file": "f", "reason": "r"}), KEYS),
    st.builds(lambda key: ("retried", {"key": key, "reason": "r"}), KEYS),
    st.builds(lambda key: ("failed", {"key": key}), KEYS),
    st.just(("plan", {"group": {}, "environment": {}})),
    st.just(("ended", {"status": "done"})),
    st.builds(lambda n: ("point", {"run_id": "r", "num_learned": n, "metrics": {}}), st.integers(1, 3)),
)


@given(st.lists(PAYLOADS, max_size=30), st.data())
def test_state_is_the_replay_of_its_rows_in_any_pieces(
    events: list[tuple[str, dict[str, Any]]], data: st.DataObject
) -> None:
    rows = [Row(number, number, kind, payload) for number, (kind, payload) in enumerate(events, start=1)]
    cut = data.draw(st.integers(0, len(rows)))
    assert GroupState().apply(rows[:cut]).apply(rows[cut:]) == GroupState().apply(rows)


def test_the_first_result_of_a_key_stands_until_it_is_lost() -> None:
    rows = [Row(n, n, "trained", {"key": "a", "sha256": str(n)}) for n in (1, 2)]
    state = GroupState().apply(rows)
    assert state.trained["a"].payload["sha256"] == "1"
    state.apply(
        [Row(3, 3, "lost", {"key": "a", "file": "", "reason": ""}), Row(4, 4, "trained", {"key": "a", "sha256": "4"})]
    )
    assert state.trained["a"].payload["sha256"] == "4"


def test_a_ledger_that_cannot_be_used_for_now_is_not_called_corrupt(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite").mkdir()
    with pytest.raises(SupSupError, match="cannot be used") as raised:
        LedgerWriter(tmp_path / "ledger.sqlite")
    assert not isinstance(raised.value, CorruptError)


def written(path: Path, count: int) -> list[Row]:
    """A ledger of so many rows, and a snapshot of it."""
    writer = LedgerWriter(path)
    for number in range(count):
        writer.append("retried", key=str(number), reason="a reason that is long enough to fill pages" * 3)
    writer.snapshot()
    rows = writer.rows()
    writer.close()
    return rows


def flip(path: Path, offset: int, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1 << bit
    path.write_bytes(bytes(content))


def test_wherever_a_bit_flips_the_snapshot_gives_every_row_back(tmp_path: Path) -> None:
    """The schema's page and its header too, whose damage SQLite tells in words of its own."""
    path = tmp_path / "ledger.sqlite"
    rows = written(path, 12)
    whole = path.read_bytes()
    kept = snapshot_path(path).read_bytes()
    offsets = [*range(16, 100, 3), *range(100, 4096, 61), *range(4096, len(whole), 211)]
    fallbacks = 0
    for number, offset in enumerate(offsets):
        for old in tmp_path.glob("ledger*"):
            old.unlink()
        path.write_bytes(whole)
        snapshot_path(path).write_bytes(kept)
        flip(path, offset, number % 8)
        writer, found, aside = open_ledger(path)
        assert found == rows, offset
        fallbacks += aside is not None
        writer.append("retried", key="more", reason="")
        writer.close()
    assert fallbacks > 20


def test_a_damaged_ledger_does_not_take_its_snapshots_place(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    rows = written(path, 200)
    flip(path, path.read_bytes().index(b"enough to fill"), 0)
    writer = LedgerWriter(path)  # reads the last row alone
    writer.append("retried", key="later", reason="")
    with pytest.raises(CorruptError, match="damaged on disk"):
        writer.snapshot()
    writer.close()
    writer, found, aside = open_ledger(path)
    assert (found, aside is not None) == (rows, True)
    writer.close()
