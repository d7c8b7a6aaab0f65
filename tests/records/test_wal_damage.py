"""The -wal of a ledger: damage that would remove committed rows unseen is found, and nothing else is reported."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import sqlite3
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.records.ledgers.ledger import LedgerReader, LedgerWriter, open_ledger
from orchestrator.records.ledgers.ledger_file import snapshot_path
from orchestrator.records.ledgers.wal_damage import check_wal, wal_damage
from orchestrator.records.rows import JobRetried
from supsup_core.errors import CorruptError

FRAME = 24 + 4096
REASON = "a reason that is long enough to fill pages" * 8


def killed_ledger(folder: Path, count: int) -> Path:
    """Returns a ledger of `count` rows in a -wal, as a writer leaves it that is killed with SIGKILL."""
    code = (
        "import os, sys; from pathlib import Path; from orchestrator.records.ledgers.ledger import LedgerWriter\n"
        "from orchestrator.records.rows import JobRetried\n"
        "w = LedgerWriter(Path(sys.argv[1]))\n"
        f"[w.append(JobRetried(str(n), {REASON!r})) for n in range({count})]\n"
        "os.kill(os.getpid(), 9)\n"
    )
    path = folder / "ledger.sqlite"
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == -9
    return path


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger of 20 rows in a -wal. Tests must copy it."""
    return killed_ledger(tmp_path_factory.mktemp("killed"), 20)


def wal_of(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def copied(ledger: Path, folder: Path, flipped: int | None = None) -> Path:
    """Copies a ledger and its -wal to `folder`. flipped: a byte of the -wal in which one bit is flipped."""
    for part in (ledger, wal_of(ledger)):
        shutil.copyfile(part, folder / part.name)
    path = folder / ledger.name
    if flipped is not None:
        content = bytearray(wal_of(path).read_bytes())
        content[flipped] ^= 4
        wal_of(path).write_bytes(bytes(content))
    return path


def test_an_intact_wal_has_no_damage_at_any_length_of_a_kill(killed: Path) -> None:
    """A process that is killed leaves whole frames and at most one frame that is cut."""
    content = wal_of(killed).read_bytes()
    assert len(content) > 20 * FRAME
    for length in [*range(0, 200), *range(200, len(content), 997), len(content)]:
        assert wal_damage(content[:length]) is None, length


def test_a_flipped_bit_anywhere_in_the_wal_is_found(killed: Path) -> None:
    """Bit 2 of the last commit's size would be the exception: without it, the frame ends no transaction."""
    content = wal_of(killed).read_bytes()
    rng = random.Random(28)
    unseen = []
    for _ in range(400):
        at, bit = rng.randrange(len(content)), rng.randrange(8)
        changed = bytearray(content)
        changed[at] ^= 1 << bit
        if wal_damage(bytes(changed)) is None:
            unseen.append((at, bit))
    assert unseen == []


@pytest.mark.parametrize("number", [1, 7, 20])
def test_the_first_damaged_frame_is_named_and_sqlite_ignores_it_and_all_later_frames(
    killed: Path, tmp_path: Path, number: int
) -> None:
    num_frames = (len(wal_of(killed).read_bytes()) - 32) // FRAME
    path = copied(killed, tmp_path, flipped=32 + (number - 1) * FRAME + 24 + 1000)
    damage = wal_damage(wal_of(path).read_bytes())
    assert damage is not None
    assert damage.first == number
    assert number + damage.num_lost == num_frames + 1
    with contextlib.closing(sqlite3.connect(path)) as db:
        _, _, num_read = db.execute("PRAGMA wal_checkpoint").fetchone()
        assert num_read < number  # up to the last commit before the damage


def test_frames_of_an_earlier_cycle_of_the_wal_are_not_damage(tmp_path: Path) -> None:
    """SQLite writes the -wal from its start again after a checkpoint, and leaves the rest of the file."""
    writer = LedgerWriter(tmp_path / "ledger.sqlite")
    for number in range(30):
        writer.append(JobRetried(str(number), REASON))
    writer._db.execute("PRAGMA wal_checkpoint(RESTART)")
    size = wal_of(tmp_path / "ledger.sqlite").stat().st_size
    writer.append(JobRetried("after", REASON))
    content = wal_of(tmp_path / "ledger.sqlite").read_bytes()
    assert len(content) == size
    assert wal_damage(content) is None
    (salt,) = struct.unpack_from(">I", content, 16)
    (old,) = struct.unpack_from(">I", content, 32 + 10 * FRAME + 8)
    assert salt == old + 1
    writer.close()


@pytest.mark.parametrize("snapshot_rows", [0, 4, 15])
def test_rows_behind_the_damage_are_reported_and_the_longer_of_ledger_and_snapshot_is_used(
    killed: Path, tmp_path: Path, snapshot_rows: int
) -> None:
    path = copied(killed, tmp_path)
    content = wal_of(path).read_bytes()
    if snapshot_rows:
        until = content.index(f'"{snapshot_rows - 1}"'.encode()) // FRAME
        short = tmp_path / "short"
        short.mkdir()
        shutil.copyfile(path, short / path.name)
        wal_of(short / path.name).write_bytes(content[: 32 + (until + 2) * FRAME])
        writer = LedgerWriter(short / path.name)
        writer.snapshot()
        assert len(writer.rows()) >= snapshot_rows
        writer.close()
        shutil.copyfile(snapshot_path(short / path.name), snapshot_path(path))
    path = copied(killed, tmp_path, flipped=content.index(b'"10"') + 40)
    with LedgerReader(path) as reader, pytest.raises(CorruptError, match=r"frame \d+ of its -wal is damaged"):
        reader.rows()
    damaged = wal_of(path).read_bytes()
    opened = open_ledger(path)
    opened.writer.append(JobRetried("after", ""))
    opened.writer.close()
    expected = max(10, snapshot_rows)
    assert expected <= len(opened.rows) <= expected + 1
    assert [row.event.key for row in opened.rows if isinstance(row.event, JobRetried)] == [
        str(number) for number in range(len(opened.rows))
    ]
    assert opened.set_aside is not None
    assert damaged in {other.read_bytes() for other in tmp_path.glob("*.corrupt*-wal")}
    with LedgerReader(path) as reader:
        assert len(reader.verify()) == len(opened.rows) + 1


def test_a_wal_that_a_running_writer_starts_again_is_not_reported(
    killed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the file is read, the writer may replace its header, so that the frames no longer fit the header."""
    path = copied(killed, tmp_path, flipped=32 + 5 * FRAME + 100)
    intact = wal_of(killed).read_bytes()
    monkeypatch.setattr("time.sleep", lambda seconds: wal_of(path).write_bytes(intact))
    check_wal(path)


def test_damage_is_reported_while_the_writer_runs(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    writer = LedgerWriter(path)
    for number in range(8):
        writer.append(JobRetried(str(number), REASON))
    with open(wal_of(path), "r+b") as file:
        file.seek(32 + 2 * FRAME + 200)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    with LedgerReader(path) as reader, pytest.raises(CorruptError, match="frame 3 of its -wal is damaged"):
        reader.verify()
    writer.close()
