"""Hundreds of malformed inputs. Each is refused in one line with exit code 2, or is named and repaired without a loss.

    pytest -m long -s tests/integration/test_malformed.py

Each test prints the number of inputs that it tried. The inputs are valid inputs with random damage from a seed.
"""

from __future__ import annotations

import io
import random
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.cli.command_lines import parameter, verbs_without_names
from tests.conftest import SMALL, Result
from tests.outputs import artifacts, tables, trained

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

Command = Callable[..., Result]
ROOT = Path(__file__).parents[2]


def told(result: Result) -> None:
    """Asserts that a command printed no traceback, and that a refusal (exit code 2) is one line."""
    assert "Traceback" not in result.out + result.err, result
    if result.code == 2:
        assert len(result.err.strip().splitlines()) == 1, result.err
    else:
        assert result.code in (0, 1), result


def spoilt(content: bytes, drawn: random.Random) -> bytes:
    """Returns the bytes with random damage; the result always differs from the input."""
    at = drawn.randrange(len(content))
    some = drawn.randbytes(drawn.randint(1, 40))
    made = drawn.choice(
        [
            lambda: content[:at],
            lambda: content[:at] + some + content[at:],
            lambda: content[:at] + bytes([content[at] ^ 1 << drawn.randrange(8)]) + content[at + 1 :],
            lambda: content[:at] + bytes(min(512, len(content) - at)) + content[at + 512 :],
            lambda: b"",
            lambda: some,
            lambda: content[at:] + content[:at],
        ]
    )()
    return made if made != content else some + content


WRONG: list[Any] = [None, [], {}, "", "x", -1, 0, 1e400, float("nan"), [[]], {"name": []}, True, "../x", "\x00", 10**30]
"""Values that are invalid for most keys."""


def spoilt_node(node: Any, drawn: random.Random) -> Any:
    """Returns a copy of a YAML document in which one key is misspelt, removed or given a wrong value."""
    node = yaml.safe_load(yaml.safe_dump(node))
    held, key = drawn.choice(list(places(node)))
    match drawn.randrange(3):
        case 0:
            held[key] = drawn.choice(WRONG)
        case 1 if isinstance(held, dict):
            held[f"{key}s"] = held.pop(key)
        case _:
            del held[key]
    return node


def places(node: Any) -> Iterator[tuple[Any, Any]]:
    """Yields every position in a document, as (container, key or index)."""
    for key in list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
        yield node, key
        yield from places(node[key])


def test_sweep_files_and_overrides(supsup: Command, tmp_path: Path) -> None:
    drawn = random.Random(1)
    whole = {**SMALL, "variants": {"a": {"method.name": "psp", "scenario": "GG"}}, "seeds": [0, 1]}
    text = yaml.safe_dump(whole).encode()
    refused = 0
    for number in range(160):
        file = tmp_path / f"case{number}.yaml"
        words: list[str] = []
        match number % 4:
            case 0:
                file.write_bytes(spoilt(text, drawn))
            case 3:
                file.write_bytes(text)
                words = [spoilt(b"training.num_batches=30", drawn).decode("latin1").replace("\x00", "")]
            case _:
                file.write_text(yaml.safe_dump(spoilt_node(whole, drawn)))
        result = supsup("plan", file, *words)
        told(result)
        refused += result.code == 2
        assert not (tmp_path / "runs").exists()
    print(f"sweep files and overrides: 160 tried, {refused} refused, the others were sound after all")
    assert refused >= 80


def test_cluster_files(supsup: Command, tmp_path: Path) -> None:
    drawn = random.Random(2)
    content = (ROOT / "ray_cluster.yaml").read_bytes()
    node = yaml.safe_load(content)
    found = 0
    for number in range(60):
        file = tmp_path / f"case{number}.yaml"
        if number % 2:
            file.write_bytes(spoilt(content, drawn))
        else:
            file.write_text(yaml.safe_dump(spoilt_node(node, drawn)))
        result = supsup("cluster", "check", file)
        assert "Traceback" not in result.out + result.err
        assert result.code in (0, 2)
        found += result.code == 2
    print(f"cluster files: 60 tried, {found} refused")
    assert found >= 30


@pytest.fixture
def whole(supsup: Command, sweep_file: Callable[..., Path], tmp_path: Path) -> Path:
    """The output of a finished sweep."""
    assert supsup("sweep", sweep_file(), "output=whole", "--local").code == 0
    return tmp_path / "whole"


def damaged(whole: Path, tried: Path, drawn: random.Random, pattern: str) -> Path:
    """Copies an output, and damages or deletes one file of the copy. Returns this file."""
    shutil.copytree(whole, tried)
    file = drawn.choice(sorted(tried.glob(pattern)))
    if drawn.random() < 0.1:
        file.unlink()
    else:
        file.write_bytes(spoilt(file.read_bytes(), drawn))
    return file


@pytest.mark.parametrize(
    ("pattern", "count"), [("store/??/*.safetensors", 40), ("sweeps/*/groups/*/ledger.sqlite", 40)]
)
def test_artifacts_and_ledgers(supsup: Command, whole: Path, tmp_path: Path, pattern: str, count: int) -> None:
    """A resume restores all results to the same bits, and names the recomputed files."""
    drawn = random.Random(3)
    wanted = (artifacts(whole), tables(whole)["points.csv"])
    named = 0
    for number in range(count):
        name = f"tried{number}"  # a new folder each time, because MLflow caches a database in memory
        file = damaged(whole, tmp_path / name, drawn, pattern)
        told(supsup("status", f"output={name}"))
        told(supsup("fsck", f"output={name}", "--local"))
        result = supsup("resume", f"output={name}", "--local")
        told(result)
        assert result.code == 0, result
        named += "recomputed" in result.out
        assert supsup("fsck", f"output={name}", "--repair", "--local").code == 0
        found = artifacts(tmp_path / name)
        assert found.items() <= wanted[0].items(), file
        assert {f"{row['key']}.safetensors" for row in trained(tmp_path / name)} <= set(found), file
        assert tables(tmp_path / name)["points.csv"] == wanted[1]
    print(f"{pattern}: {count} tried, all made good, {named} of them named by the resume, the others by fsck")
    assert named


def test_sweep_descriptions(supsup: Command, whole: Path, tmp_path: Path) -> None:
    """Every verb without a required name refuses a damaged sweep.json or output marker, and changes no artifact."""
    drawn = random.Random(4)
    wanted, refused = artifacts(whole), 0
    for number in range(40):
        name = f"tried{number}"
        damaged(whole, tmp_path / name, drawn, "sweeps/*/sweep.json" if number % 4 else "supsup-output.json")
        codes = {}
        for verb in verbs_without_names():
            result = supsup(verb, f"output={name}", *(["--local"] if parameter(verb, "local") else []))
            told(result)
            codes[verb] = result.code
        refused += codes["resume"] == 2
        assert artifacts(tmp_path / name) == wanted
    print(f"sweep.json and markers: 40 tried, {refused} refused by resume")
    assert refused >= 25


def test_snapshots_in_a_storage(supsup: Command, sweep_file: Callable[..., Path], tmp_path: Path) -> None:
    """After a damaged snapshot, the previous snapshot is used, or the trained tasks in the storage."""
    drawn = random.Random(5)
    storage = tmp_path / "stored"
    made = supsup("sweep", sweep_file(), "output=first", f"storage=file://{storage}", "--local")
    assert made.code == 0, made
    wanted = tables(tmp_path / "first")["points.csv"]
    shutil.copytree(storage, tmp_path / "kept")
    for number in range(20):
        name = f"fresh{number}"
        shutil.rmtree(storage)
        shutil.copytree(tmp_path / "kept", storage)
        for file in drawn.sample(sorted(storage.glob("sweeps/*/groups/*/ledger-*.sqlite")), drawn.choice([1, 2])):
            file.write_bytes(spoilt(file.read_bytes(), drawn))
        told(supsup("status", f"storage=file://{storage}"))
        result = supsup("resume", f"output={name}", f"storage=file://{storage}", "--local")
        told(result)
        assert result.code == 0, result
        assert tables(tmp_path / name)["points.csv"] == wanted
    print("snapshots: 20 tried, all made good")


HOSTILE = [
    "../../escaped",
    "/tmp/supsup-escaped",
    "cifar-10-batches-bin/../../escaped",
    "./data_batch_1.bin\x00x",
    "a" * 300,
]


def archive(drawn: random.Random, number: int) -> bytes:
    """Returns a malformed CIFAR-10 archive: unsafe paths, links, missing or truncated members, or not an archive."""
    record = np.zeros(3073, np.uint8).tobytes()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for batch in [f"data_batch_{n}.bin" for n in range(1, 6)] + ["test_batch.bin"]:
            name = f"cifar-10-batches-bin/{batch}"
            if drawn.random() < 0.3:
                name = drawn.choice(HOSTILE)
            member = tarfile.TarInfo(name)
            content = record * drawn.choice([0, 1, 10])
            if drawn.random() < 0.3:
                member.type, member.linkname = drawn.choice([tarfile.SYMTYPE, tarfile.LNKTYPE]), "/etc/passwd"
                tar.addfile(member)
            else:
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    made = buffer.getvalue()
    return spoilt(made, drawn) if number % 2 else made


def test_archives(supsup: Command, sweep_file: Callable[..., Path], tmp_path: Path) -> None:
    """Each archive is refused before training starts, and none of its members is extracted."""
    drawn = random.Random(6)
    file = sweep_file(
        scenario="GG", benchmark={"name": "split", "base": "cifar10", "num_tasks": 5}, net={"name": "gem_resnet18"}
    )
    folder = tmp_path / "data" / "cifar10"
    folder.mkdir(parents=True)
    before = {path for path in tmp_path.rglob("*") if "home" not in path.parts}
    for number in range(40):
        (folder / "cifar-10-binary.tar.gz").write_bytes(archive(drawn, number))
        result = supsup("sweep", file, f"data={tmp_path / 'data'}", "--local")
        told(result)
        assert result.code == 2, result
        assert "cifar" in result.err
    (folder / "cifar-10-binary.tar.gz").unlink()
    assert {path for path in tmp_path.rglob("*") if "home" not in path.parts} == before
    assert not Path("/tmp/supsup-escaped").exists()
    print("archives: 40 tried, 40 refused")
