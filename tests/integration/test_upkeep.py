"""`supsup gc` and `supsup fsck` on outputs of real runs with damaged, missing and superfluous files."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from orchestrator.base.folder_lock import owned
from tests.conftest import SMALL_NNS
from tests.outputs import nns_science, the_ledger

Command = Callable[..., Any]


def everything(output: Path) -> dict[Path, bytes]:
    """Returns the content of every file that gc could delete."""
    return {
        path: path.read_bytes() for part in ("store", "sweeps") for path in (output / part).rglob("*") if path.is_file()
    }


def spoil(path: Path) -> bytes:
    """Flips a bit in the middle of a file, and returns the original content."""
    good = path.read_bytes()
    middle = len(good) // 2
    path.write_bytes(good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :])
    return good


def test_gc_deletes_files_that_no_sweep_references_and_only_with_delete(
    supsup: Command, sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    output = tmp_path / "runs"
    assert supsup("sweep", sweep_file(), "--local").code == 0
    assert "nothing to delete" in supsup("gc").out
    assert list(output.rglob("ledger.sqlite-*")) == []
    kept = everything(output)
    assert supsup("sweep", sweep_file(), "training.num_batches=31", "name=other", "--local").code == 0
    assert "nothing to delete" in supsup("gc").out
    (other,) = output.glob("sweeps/other-*")
    shutil.rmtree(other)
    (output / "sweeps" / ".sweep.json.k3x_9a0b").write_bytes(b"a part")
    (output / "sweeps" / ".theirs").write_bytes(b"of no write of ours")
    kept[output / "sweeps" / ".theirs"] = b"of no write of ours"
    (output / "store" / "corrupt").mkdir()
    (output / "store" / "corrupt" / "0123456789abcdef.0.safetensors").write_bytes(b"x" * 500_000)
    before = everything(output)
    found = supsup("gc")
    assert found.code == 0
    assert "result that no sweep references: 8 files" in found.out  # three tasks, five evaluations
    assert "damaged file that was moved aside: 1 file, 0.5 MB" in found.out
    assert "\ntemporary file of an interrupted write: 1 file" in found.out
    assert "nothing was deleted" in found.out
    assert everything(output) == before
    with owned(next(output.glob("sweeps/small-*"))):
        refused = supsup("gc", "--delete")
    assert refused.code == 2
    assert "small-" in refused.err
    assert everything(output).keys() >= before.keys()
    assert supsup("gc", "--delete").code == 0
    left = {path: content for path, content in everything(output).items() if path.name not in ("lock", "holder")}
    assert left == {path: content for path, content in kept.items() if path.name not in ("lock", "holder")}
    assert "nothing to delete" in supsup("gc").out


def test_fsck_finds_every_fault_and_recomputes_lost_files_to_the_same_bits(
    supsup: Command, sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    output = tmp_path / "runs"
    assert supsup("sweep", sweep_file(), "--local").code == 0
    sound = supsup("fsck")
    assert (sound.code, sound.err) == (0, "")
    assert "verified 8 artifacts and every ledger: found 0 faults" in sound.out
    good = {path: path.read_bytes() for path in (output / "store").glob("??/*")}
    masks = sorted(path for path, content in good.items() if len(content) > 5000)
    (evaluation, *_) = sorted(path for path, content in good.items() if len(content) < 5000)
    spoil(masks[0])
    masks[1].unlink()
    spoil(evaluation)
    found = supsup("fsck")
    assert found.code == 1
    assert f"{masks[0].relative_to(tmp_path)}: its bytes do not match its SHA-256" in found.out
    assert f"{masks[1].relative_to(tmp_path)}: missing" in found.out
    assert f"{evaluation.relative_to(tmp_path)}: " in found.out
    assert "3 faults" in found.out
    repaired = supsup("fsck", "--repair", "--local")
    assert repaired.code == 0, repaired.err
    assert {path: path.read_bytes() for path in masks} == {path: good[path] for path in masks}
    assert supsup("fsck").code == 0
    assert supsup("gc").out.count("store/corrupt") == 2


def test_fsck_restores_masks_and_ledgers_of_nns(
    supsup: Command, sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    output = tmp_path / "runs"
    assert supsup("sweep", sweep_file(**SMALL_NNS), "--local").code == 0
    wanted = nns_science(the_ledger(output))
    mask, other, *_ = sorted(output.glob("sweeps/*/groups/*/masks/??/*"))
    spoil(mask)
    other.unlink()
    found = supsup("fsck")
    assert (found.code, found.out.count("to restore the file")) == (1, 2)
    assert supsup("fsck", "--repair", "--local").code == 0
    assert nns_science(the_ledger(output)) == wanted
    with closing(sqlite3.connect(the_ledger(output))) as db:
        db.execute("UPDATE attachments SET data = zeroblob(8) WHERE seq = (SELECT min(seq) FROM attachments)")
        db.commit()
    found = supsup("fsck")
    assert found.code == 1
    assert "ledger.sqlite: the attachment of row" in found.out
    assert supsup("fsck", "--repair", "--local").code == 0
    assert nns_science(the_ledger(output)) == wanted
    copy = the_ledger(output).with_name("ledger.previous.sqlite")
    spoil(copy)
    assert supsup("fsck", "--repair", "--local").code == 0
    assert nns_science(the_ledger(output)) == wanted


def test_fsck_of_a_damaged_sweep_or_without_an_output_says_what_to_do(
    supsup: Command, sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    assert supsup("fsck").code == 2
    assert supsup("gc", f"output={tmp_path / 'nowhere'}").code == 2
    assert supsup("sweep", sweep_file(), "--local").code == 0
    (node,) = (tmp_path / "runs").glob("sweeps/*/sweep.json")
    node.write_text(node.read_text()[:-20])
    found = supsup("fsck")
    assert found.code == 1
    assert "start the sweep again with `supsup sweep FILE`" in found.out
    refused = supsup("gc", "--delete")
    assert refused.code == 2
    assert "damaged" in refused.err
    assert found.out.count("sweep.json") == 1
    node.unlink()
    found = supsup("fsck")
    assert found.code == 1
    assert "start the sweep again with `supsup sweep FILE`" in found.out
    assert supsup("gc", "--delete").code == 2
    assert len(list((tmp_path / "runs" / "store").glob("??/*"))) == 8


@pytest.mark.parametrize("verb", ["gc", "fsck"])
def test_gc_and_fsck_refuse_more_than_one_output(supsup: Command, verb: str) -> None:
    assert supsup(verb, "small").code == 2
