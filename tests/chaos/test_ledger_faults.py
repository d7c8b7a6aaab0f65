"""A disk that fails while a ledger is opened never makes an intact ledger look corrupt."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest

from orchestrator.records.ledgers.ledger import LedgerReader, LedgerWriter, open_ledger
from orchestrator.records.rows import JobRetried
from supsup_core.errors import CorruptError, SupSupError
from tests.chaos.processes import Fault, Processes
from tests.chaos.test_faults import DISKS

ROWS = 4


def make() -> None:
    """Writes a ledger and kills this process, so that the rows stay in the -wal."""
    Path("killed").mkdir()
    writer = LedgerWriter(Path("killed/ledger.sqlite"))
    for number in range(ROWS):
        writer.append(JobRetried(str(number), "a long reason " * 50))
    os.kill(os.getpid(), signal.SIGKILL)


def open_with_faults() -> None:
    """Opens copies of the ledger while one call, or all calls from this one on, fail. Prints the number of faults."""
    library = ctypes.CDLL(os.environ["LD_PRELOAD"])
    path = Path("copy/ledger.sqlite")
    num_faults = 0
    for error, calls in DISKS.values():
        for count in (0, 1):
            for first in range(1, 200):
                shutil.rmtree("copy", ignore_errors=True)
                shutil.copytree("killed", "copy")
                library.arm(str(Fault(path.parent.absolute(), first, error, calls, count)).encode())
                failed = False
                try:
                    opened = open_ledger(path)
                    opened.writer.close()
                except CorruptError:
                    raise
                except (SupSupError, OSError):
                    failed = True
                num_calls = library.counted()
                library.arm(b"")
                num_faults += failed
                assert [file.name for file in path.parent.glob("*corrupt*")] == [], (error, calls, count, first)
                with LedgerReader(path) as reader:
                    assert len(reader.verify()) == ROWS
                if num_calls < first:
                    break
    print(num_faults)


@pytest.mark.timeout(120)
def test_an_intact_ledger_stays_in_its_place(fork_context: ForkServerContext, tmp_path: Path) -> None:
    processes = Processes(fork_context, tmp_path, {})
    assert processes.call(make).code == -signal.SIGKILL
    ended = processes.call(open_with_faults)
    assert ended.code == 0, ended.err
    assert int(ended.out) > 50
