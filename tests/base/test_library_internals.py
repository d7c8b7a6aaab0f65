"""The behaviour of other libraries beyond their public interfaces is still as this project relies on it."""

from __future__ import annotations

from pathlib import Path

from orchestrator.base.library_internals import ray_package_hash

EXCLUDES = ["runs", "*.egg-info"]


def test_rays_package_hash_covers_exactly_the_files_that_are_sent(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("*.log\n")
    (tmp_path / "nets.py").write_text("WIDTH = 64\n")
    (tmp_path / "runs").mkdir()
    before = ray_package_hash(tmp_path, EXCLUDES)
    assert int(before, 16)
    assert len(before) >= 16
    for ignored in ("train.log", "runs/ledger", "runs/nets.py"):
        (tmp_path / ignored).write_text("not sent")
        assert ray_package_hash(tmp_path, EXCLUDES) == before
    (tmp_path / "nets.py").write_text("WIDTH = 32\n")
    assert ray_package_hash(tmp_path, EXCLUDES) != before
    (tmp_path / "nets.py").write_text("WIDTH = 64\n")
    assert ray_package_hash(tmp_path, EXCLUDES) == before
    assert ray_package_hash(tmp_path, []) != before
