"""Coverage-guided fuzzing of all readers of files: any bytes are read, or refused with a `SupSupError`.

    pip install atheris; python -m tests.fuzz {codec,artifact,ledger,rows,sweep,cluster} SECONDS

The corpus starts with valid inputs that the program writes. The program ends at the first input that raises another
exception, and saves this input as crash-…. libFuzzer prints the number of inputs tried.
"""

from __future__ import annotations

import hashlib
import sqlite3
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import atheris
import numpy as np

with atheris.instrument_imports(include=["orchestrator", "supsup_core"]):
    from orchestrator.base.output_folder import ArtifactFolder, SweepFolder
    from orchestrator.cluster.cluster_file import read_cluster_file
    from orchestrator.records.artifact_store import ArtifactStore
    from orchestrator.records.group_state import GroupState
    from orchestrator.records.ledgers.ledger import Entry, LedgerReader, LedgerWriter, open_ledger
    from orchestrator.records.rows import Event, Row, event_from_json
    from orchestrator.spec.sweep_config import read_sweep
    from orchestrator.sweeps.sweep import open_record
    from orchestrator.sweeps.sweep_record import read_record
    from supsup_core.errors import CorruptError, SupSupError
    from supsup_core.masks import codec
    from tests.records.samples import DECIDED, EVENTS, TRAINED

HERE = Path(tempfile.mkdtemp(dir="/dev/shm"))
KEY = "0123456789abcdef"
ROOT = Path(__file__).parents[1]
KINDS = sorted({event.kind for event in EVENTS})
LARGEST = 1 << 24
"""The largest number of weights of a decoded mask. A few bytes can encode billions of weights, which is slow."""


def blob(size: int, share: float, parts: int = 1) -> bytes:
    mask = np.random.default_rng(0).random(size) < share
    return codec.encode(codec.pack(mask), size, [size // parts] * parts)


def check_codec(data: bytes) -> None:
    if len(data) >= 16 and int.from_bytes(data[8:16], "little") > LARGEST:
        return
    with suppress(CorruptError):
        bits, size = codec.decode(data)
        assert codec.decode(codec.encode(bits, size))[1] == size


def artifact() -> tuple[ArtifactStore, bytes]:
    import torch

    store = ArtifactStore(ArtifactFolder(HERE / "store"))
    store.put(KEY, {"state.mask": torch.arange(40, dtype=torch.uint8)}, TRAINED)
    return store, store.path(KEY).read_bytes()


def check_artifact(data: bytes) -> None:
    """Reads the bytes unchanged, and again with a correct hash."""
    store = ArtifactStore(ArtifactFolder(HERE / "store"))
    for content in (data, _hashed(data)):
        store.path(KEY).write_bytes(content)
        with suppress(CorruptError):
            store.get(KEY)
        with suppress(CorruptError):
            store.tensor(KEY, "state.mask")


def _hashed(data: bytes) -> bytes:
    mark = b'\\"sha256\\":\\"'
    at = data.find(mark) + len(mark)
    if at < len(mark) or len(data) < at + 64:
        return data
    blank = data[:at] + b"0" * 64 + data[at + 64 :]
    return data[:at] + hashlib.sha256(blank).hexdigest().encode() + data[at + 64 :]


def ledger() -> bytes:
    path = HERE / "seed.sqlite"
    writer = LedgerWriter(path)
    writer.commit([Entry(event) for event in EVENTS])
    writer.commit([Entry(DECIDED, b"1234")])
    writer.close()
    db = sqlite3.connect(path)
    db.execute("PRAGMA journal_mode=DELETE")
    db.close()
    return path.read_bytes()


def check_ledger(data: bytes) -> None:
    path = HERE / "ledger.sqlite"
    for file in HERE.glob("ledger.*"):
        file.unlink()
    path.write_bytes(data)
    with suppress(SupSupError), LedgerReader(path) as reader:
        reader.verify()
    with suppress(SupSupError):
        open_ledger(path).writer.close()


def check_rows(data: bytes) -> None:
    """Reads arbitrary payloads of rows, and replays those that are valid events."""
    provider = atheris.FuzzedDataProvider(data)
    events: list[Event] = []
    for _ in range(provider.ConsumeIntInRange(1, 4)):
        kind = provider.PickValueInList(KINDS)
        with suppress(CorruptError):
            events.append(event_from_json(kind, provider.ConsumeUnicodeNoSurrogates(200).encode()))
    with suppress(SupSupError):
        GroupState().apply(Row(number, number, event) for number, event in enumerate(events, start=1))


def check_sweep(data: bytes) -> None:
    (HERE / "sweep.json").write_bytes(data)
    (HERE / "sweep.yaml").write_bytes(data)
    with suppress(SupSupError):
        open_record(read_record(SweepFolder(HERE)))
    with suppress(SupSupError):
        read_sweep(HERE / "sweep.yaml", [])


def check_cluster(data: bytes) -> None:
    (HERE / "cluster.yaml").write_bytes(data)
    with suppress(SupSupError):
        assert all("\n" not in problem for problem in read_cluster_file(HERE / "cluster.yaml").problems)


TARGETS: dict[str, tuple[Callable[[bytes], None], Callable[[], list[bytes]]]] = {
    "codec": (check_codec, lambda: [blob(96, 0.5), blob(400, 0.02), blob(400, 0.02, 4), blob(7, 1.0)]),
    "artifact": (check_artifact, lambda: [artifact()[1]]),
    "ledger": (check_ledger, lambda: [ledger()]),
    "rows": (check_rows, lambda: [b'\x02\x01{"key": "a", "round": 1, "versions": {}}']),
    "sweep": (check_sweep, lambda: [path.read_bytes() for path in (ROOT / "sweeps").glob("*.yaml")]),
    "cluster": (check_cluster, lambda: [(ROOT / "ray_cluster.yaml").read_bytes()]),
}


def main(name: str, seconds: int) -> None:
    check, seeds = TARGETS[name]
    corpus = HERE / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(seeds()):
        (corpus / str(number)).write_bytes(seed)
    print(f"{name}: {len(list(corpus.iterdir()))} seeds, {seconds} s")
    atheris.Setup([sys.argv[0], str(corpus), f"-max_total_time={seconds}", "-timeout=30", "-rss_limit_mb=6000"], check)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
