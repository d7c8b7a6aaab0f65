"""The mask trainer of an NNs worker: it trains masks segment by segment and keeps them in an LRU cache."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from orchestrator.base.failpoints import set_failpoint
from orchestrator.base.output_folder import ArtifactFolder
from orchestrator.coordination.messages import MaskVersion
from orchestrator.nns.mask_trainer import MaskTrainer, SegmentTraining
from orchestrator.nns.mask_versions import Lineages
from orchestrator.records.artifact_store import ArtifactStore
from orchestrator.records.learned_tensors import provenance_here, read_mask
from orchestrator.spec.experiment import Experiment
from orchestrator.sweeps.sweep import open_sweep
from supsup_core.datasets import Dataset
from supsup_core.errors import SupSupError
from supsup_core.nns.streams import Segment
from tests.nns.small_runs import NNS

LARGE, NONE = 10**9, 0


@pytest.fixture
def experiment(sweep_file: Callable[..., Path], tmp_path: Path) -> Experiment:
    (group,) = open_sweep(sweep_file(**NNS), [f"output={tmp_path / 'runs'}"]).plan()
    return group.experiment


@pytest.fixture
def lineages(experiment: Experiment) -> Lineages:
    """The lineages of two masks: the first has three segments of task 0, the second has two segments of task 1."""
    known = Lineages.of(experiment)
    for number, count in ((0, 3), (1, 2)):
        for index in range(count):
            known.extend(number, Segment(number, index))
    return known


@pytest.fixture
def make(experiment: Experiment, digits: Dataset, tmp_path: Path) -> Callable[..., MaskTrainer]:
    """Returns a function that makes a trainer with a cache limit and a folder for versions."""

    def made(limit: int, name: str = "masks") -> MaskTrainer:
        store = ArtifactStore(ArtifactFolder(tmp_path / name))
        problem = experiment.problem("cpu")
        return MaskTrainer(experiment, problem, digits, provenance_here(problem), store, limit)

    return made


@pytest.fixture
def trained() -> Any:
    """Records the segments that are trained on, by the image indices of their first batches."""
    found: list[bytes] = []

    def note(subject: object) -> None:
        assert isinstance(subject, SegmentTraining)
        found.append(subject.order[0].numpy().tobytes())

    set_failpoint("segment_begins", note)
    yield found
    set_failpoint("segment_begins", None)


def version(lineages: Lineages, number: int, length: int, stored: tuple[str, ...] = ()) -> MaskVersion:
    return lineages[number].version(stored, length)


def test_a_mask_in_memory_is_trained_only_on_its_new_segments(
    make: Callable[..., MaskTrainer], lineages: Lineages, trained: list[bytes]
) -> None:
    trainer, other = make(LARGE), make(LARGE, "other")
    for length in (1, 2, 3):
        step_by_step = trainer.advance(version(lineages, 0, length))
    assert len(trained) == len(set(trained)) == 3
    at_once = other.advance(version(lineages, 0, 3))
    assert len(trained) == 6
    assert step_by_step.mask == at_once.mask
    assert step_by_step.loss == at_once.loss


def test_a_mask_is_read_back_from_its_stored_version(
    make: Callable[..., MaskTrainer], lineages: Lineages, trained: list[bytes], tmp_path: Path
) -> None:
    trainer = make(LARGE)
    assert trainer.save(version(lineages, 0, 2)) > 0
    assert trainer.save(version(lineages, 0, 2)) == 0  # the version is stored already
    found = make(LARGE).advance(version(lineages, 0, 3, (lineages[0].keys[2],)))
    assert len(trained) == 3
    assert found.mask == make(LARGE, "other").advance(version(lineages, 0, 3)).mask
    store = ArtifactStore(ArtifactFolder(tmp_path / "masks"))
    wanted = make(LARGE, "other").advance(version(lineages, 0, 2)).mask
    assert read_mask(store, lineages[0].keys[2]).numpy().tobytes() == wanted


def test_a_stored_version_of_other_frozen_weights_is_not_trained_further(
    make: Callable[..., MaskTrainer], lineages: Lineages, other_weights: Callable[[], None]
) -> None:
    make(LARGE).save(version(lineages, 0, 2))
    other_weights()
    with pytest.raises(SupSupError, match=r"\.safetensors: this result belongs to other frozen weights"):
        make(LARGE).advance(version(lineages, 0, 3, (lineages[0].keys[2],)))


def test_a_corrupt_intermediate_version_is_rebuilt_by_training(
    make: Callable[..., MaskTrainer], lineages: Lineages, trained: list[bytes], tmp_path: Path
) -> None:
    make(LARGE).save(version(lineages, 0, 2))
    path = ArtifactStore(ArtifactFolder(tmp_path / "masks")).path(lineages[0].keys[2])
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    found = make(LARGE).advance(version(lineages, 0, 3))
    assert len(trained) == 5
    assert found.mask == make(LARGE, "other").advance(version(lineages, 0, 3)).mask


def test_masks_evicted_from_memory_are_written_to_disk_and_reported(
    make: Callable[..., MaskTrainer], lineages: Lineages, trained: list[bytes], tmp_path: Path
) -> None:
    trainer = make(NONE)
    trainer.advance(version(lineages, 0, 2))
    assert trainer.take_evicted() == ()
    trainer.advance(version(lineages, 1, 1))
    assert trainer.take_evicted() == (lineages[0].keys[2],)
    assert trainer.take_evicted() == ()
    assert ArtifactStore(ArtifactFolder(tmp_path / "masks")).has(lineages[0].keys[2])
    found = trainer.advance(version(lineages, 0, 3))  # continues from the evicted version
    assert len(trained) == 4
    assert found.mask == make(LARGE, "other").advance(version(lineages, 0, 3)).mask


def test_an_error_in_training_leaves_no_half_trained_mask(make: Callable[..., MaskTrainer], lineages: Lineages) -> None:
    trainer = make(LARGE)
    trainer.advance(version(lineages, 0, 1))

    def fail(subject: object) -> None:
        assert isinstance(subject, SegmentTraining)
        subject.trainee.train(subject.task, subject.order[:1], num_points=1)
        raise RuntimeError("an error for this test")

    set_failpoint("segment_begins", fail)
    with pytest.raises(RuntimeError, match="for this test"):
        trainer.advance(version(lineages, 0, 2))
    set_failpoint("segment_begins", None)
    found = trainer.advance(version(lineages, 0, 2))
    assert found.mask == make(LARGE, "other").advance(version(lineages, 0, 2)).mask


def test_the_decision_vector_depends_on_the_superposition_and_the_segment(
    make: Callable[..., MaskTrainer], experiment: Experiment
) -> None:
    trainer = make(LARGE)
    size = sum(layer.size for layer in experiment.problem("cpu").layers)
    mean = torch.full((size,), 0.5)
    first = trainer.decision_vector(mean, 0, 0)
    assert first.vector.shape == (size,)
    assert first.vector.dtype == np.float32
    assert np.array_equal(first.vector, make(LARGE).decision_vector(mean, 0, 0).vector)
    assert not np.array_equal(first.vector, trainer.decision_vector(mean, 1, 0).vector)
    assert not np.array_equal(first.vector, trainer.decision_vector(0.4 * torch.ones(size), 0, 0).vector)
