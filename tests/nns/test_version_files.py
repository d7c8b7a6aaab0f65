"""The mask versions that stay on disk after each commit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from orchestrator.base.output_folder import ArtifactFolder
from orchestrator.coordination.messages import RebuildJob
from orchestrator.nns.mask_versions import Lineages
from orchestrator.nns.version_files import VersionFiles
from orchestrator.records.artifact_store import ArtifactStore
from supsup_core.nns.streams import Segment
from tests.records.samples import VERSION


class Fixture:
    """Two masks with the files of their versions."""

    def __init__(self, folder: Path) -> None:
        self.store = ArtifactStore(ArtifactFolder(folder))
        self.lineages = Lineages("identity", segment_batches=20)
        self.first = {number: self.extend(number) for number in (0, 1)}
        self.files = VersionFiles(self.store, self.lineages, [0, 1])

    def extend(self, number: int) -> str:
        """Extends a mask by one segment, stores the new version, and returns its key."""
        key = self.lineages.extend(number, Segment(number, len(self.lineages[number].segments)))
        self.store.put(key, {"score": torch.zeros(1)}, VERSION)
        return key

    def commit(self, changed: dict[int, str], used: set[str] = frozenset()) -> set[str]:  # type: ignore[assignment]
        self.files.add(changed.values())
        return self.files.advance(self.files.current | changed, used)


@pytest.fixture
def versions(tmp_path: Path) -> Fixture:
    return Fixture(tmp_path)


def test_a_superseded_version_is_deleted_by_the_commit_after_the_next(versions: Fixture) -> None:
    """The old version is kept for one more commit, because the newer version may turn out to be corrupt."""
    second = versions.extend(0)
    assert versions.commit({0: second}) == set()
    assert versions.store.has(versions.first[0])
    assert versions.commit({0: versions.extend(0)}) == {versions.first[0]}
    assert not versions.store.has(versions.first[0])
    assert versions.files.stored == set(versions.store)
    assert versions.files.current[1] == versions.first[1]


def test_a_version_in_use_is_kept(versions: Fixture) -> None:
    versions.commit({0: versions.extend(0)})
    assert versions.commit({0: versions.extend(0)}, used={versions.first[0]}) == set()
    assert versions.commit({}) >= {versions.first[0]}


def test_evicted_versions_are_deleted_unless_they_become_current(versions: Fixture) -> None:
    ahead, further = versions.extend(0), versions.extend(0)
    versions.files.add_evicted([ahead, further])
    assert {ahead, further} <= versions.files.stored
    assert versions.commit({0: ahead}) == {further}
    assert versions.store.has(ahead)


def test_versions_left_by_an_earlier_launch_are_deleted(tmp_path: Path) -> None:
    before = Fixture(tmp_path)
    left = before.first[0]
    before.extend(0)
    files = VersionFiles(before.store, before.lineages, [0, 1])
    assert files.advance(files.current, set()) == {left}


def test_a_lost_version_is_rebuilt_from_stored_versions(versions: Fixture) -> None:
    second = versions.extend(0)
    versions.commit({0: second})
    versions.files.mark_lost(second, needed=True)
    (job,) = versions.files.rebuild_jobs()
    assert isinstance(job, RebuildJob)
    assert (job.key, job.version.key, job.version.base) == (f"rebuild-{second}", second, versions.first[0])
    versions.files.mark_lost(versions.first[0], needed=False)
    (job,) = versions.files.rebuild_jobs()
    assert job.version.base is None
    versions.files.mark_rebuilt(second)
    assert not versions.files.missing
    assert second in versions.files.stored


def test_current_versions_are_never_marked_as_deletable(versions: Fixture) -> None:
    versions.files.mark_deletable(set(versions.first.values()))
    assert versions.commit({}) == set()
