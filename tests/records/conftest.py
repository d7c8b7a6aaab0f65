"""Fixtures: a storage of each kind, and the artifact stores of two machines that share one storage."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from orchestrator.base.output_folder import ArtifactFolder
from orchestrator.records.artifact_store import ArtifactStore
from orchestrator.records.object_storage import Storage
from tests.object_store import ObjectStore


@pytest.fixture(params=["file", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    """An empty folder, in a file system and in an object store."""
    if request.param == "file":
        return Storage(f"file://{tmp_path}/stored", patience=5.0)
    server: ObjectStore = request.getfixturevalue("object_store")
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return Storage(f"s3://tests/{tmp_path.name}-{time.time_ns()}", patience=20.0)


@pytest.fixture
def stores(folder: Storage, tmp_path: Path) -> tuple[ArtifactStore, ArtifactStore]:
    """The artifact stores of two machines that share one storage."""
    one, other = (ArtifactFolder(tmp_path / name) for name in ("one", "other"))
    return ArtifactStore(one, folder / "store"), ArtifactStore(other, folder / "store")
