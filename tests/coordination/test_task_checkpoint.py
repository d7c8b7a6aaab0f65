"""Checkpoints of a task whose training takes long."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from orchestrator.base.failpoints import set_failpoint
from orchestrator.base.output_folder import ArtifactFolder
from orchestrator.coordination import task_checkpoint
from orchestrator.coordination.settings import GroupSettings
from orchestrator.coordination.task_checkpoint import GENERATIONS, StoredCheckpoint
from orchestrator.records.artifact_store import ArtifactStore
from tests.coordination.test_task_coordinator import science
from tests.scripted import in_output, run, state_of

KEY = "ab12" * 8


def test_a_long_task_resumes_from_its_newest_intact_checkpoint(
    group: GroupSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The training is interrupted while the fourth checkpoint is written, and the third checkpoint is corrupt."""
    wanted = in_output(group, tmp_path / "wanted")
    run(wanted)
    often = replace(group, commit_every=0.0)
    monkeypatch.setattr(task_checkpoint, "COST_SHARE", 0)

    def die_at_the_fourth(key: object) -> None:
        if str(key).endswith("-000000000004"):
            raise KeyboardInterrupt

    set_failpoint("writing_artifact", die_at_the_fourth)
    try:
        run(often)
    finally:
        set_failpoint("writing_artifact", None)
    checkpoints = sorted(group.open_store().folder.unfinished.files())
    assert [path.stem.rpartition("-")[2].lstrip("0") for path in checkpoints] == ["2", "3"]
    checkpoints[1].write_bytes(checkpoints[1].read_bytes()[:-1] + b"?")
    run(often)
    state = state_of(group)
    assert [row.event.resumed_at for row in state.trained.values()] == [2, 0, 0]
    assert science(state) == science(state_of(wanted))
    assert not list(group.open_store().folder.unfinished.files())


def test_the_newest_checkpoints_are_kept_until_the_task_is_stored(tmp_path: Path) -> None:
    store = ArtifactStore(ArtifactFolder(tmp_path))
    checkpoint = StoredCheckpoint(store, KEY)
    for done in (1, 10, 100):
        checkpoint.save(done, {"score": torch.full((2,), float(done))})
    assert len(store.unfinished.numbered(KEY)) == GENERATIONS
    resumed = StoredCheckpoint(store, KEY)
    states = resumed.stored_states()
    assert next(states)["score"].tolist() == [100.0, 100.0]
    assert resumed.resumed_at == 100
    assert next(states)["score"].tolist() == [10.0, 10.0]
    assert resumed.resumed_at == 10
    assert next(states, None) is None
    assert (resumed.resumed_at, resumed.seconds_before) == (0, 0.0)
    resumed.clear()
    assert store.unfinished.numbered(KEY) == []


def test_a_checkpoint_is_due_only_after_its_interval(tmp_path: Path) -> None:
    store = ArtifactStore(ArtifactFolder(tmp_path))
    assert StoredCheckpoint(store, KEY, every=0.0).due()
    assert not StoredCheckpoint(store, KEY, every=60.0).due()
