"""Piggyback: each task learns a mask and a head on a trained backbone (Mallya et al. 2018)."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, final

import numpy as np
import safetensors
import torch
from torch import Tensor

from supsup_core.errors import InputError
from supsup_core.field_limits import MOST_RATE, check_limits, limited
from supsup_core.input_files import user_path
from supsup_core.masks import Threshold, codec
from supsup_core.methods.base import METHODS, ChecksProblem, Dependence, Learned, Method, Problem, States
from supsup_core.methods.fitting import dense, fit, fresh_head, fresh_weights
from supsup_core.methods.layer_tensors import load_layer_tensors, name_layer_tensors
from supsup_core.methods.learners import Learner
from supsup_core.methods.weights_learner import WeightsLearner
from supsup_core.nets.base import Layer
from supsup_core.tasks.base import Task
from supsup_core.training.checkpoint import NOWHERE, Checkpoint
from supsup_core.training.parametrizations import Dense, Scored

INITIAL_SCORE, THRESHOLD = 1e-2, 5e-3
"""The initial value of every score, and the smallest score with which a mask keeps a weight."""


def _masked(problem: Problem, backbone: Sequence[Tensor], blob: Tensor | None) -> list[Tensor]:
    """Returns the backbone's weights times a mask. blob: the encoded mask; None keeps all weights.

    The task that trained the backbone has no mask.
    """
    if blob is None:
        return list(backbone)
    bits, size = codec.decode(blob.numpy().tobytes())
    flat = torch.from_numpy(codec.unpack(bits, size).astype(np.float32)).to(problem.device)
    kept = torch.split(flat, [layer.size for layer in problem.layers[:-1]])
    return [w * m.view(w.shape) for w, m in zip(backbone, kept, strict=True)]


@final
@METHODS.register("piggyback")
@dataclass(frozen=True, kw_only=True)
class Piggyback(Method, ChecksProblem):
    """Every task learns a mask over one trained backbone (all layers but the last), and a separate last layer (head).

    `backbone`: the absolute path of a safetensors file with the backbone's weights, under the layers' names. Without a
    file, the first task trains the backbone and its own head at `training.learning_rate`, and has no mask.
    `backbone_sha256`: filled in by the program, to detect a file that changes during a sweep. `mask_learning_rate`: the
    learning rate of the scores, and of the heads of tasks with a mask.
    """

    scenarios: ClassVar[frozenset[str]] = frozenset({"GG"})
    superposes: ClassVar[bool] = False

    mask_learning_rate: float = limited(1e-4, most=MOST_RATE)
    backbone: str | None = None
    backbone_sha256: str | None = None

    def __post_init__(self) -> None:
        check_limits(self)
        if not self.mask_learning_rate > 0:
            raise InputError(f"mask_learning_rate: must be positive, not {self.mask_learning_rate}")
        if self.backbone is None:
            if self.backbone_sha256 is not None:
                raise InputError("backbone_sha256: needs a backbone; set method.backbone, or remove this key")
            return
        found = _sha256(_backbone_path(self.backbone))
        if self.backbone_sha256 not in (None, found):
            raise InputError(f"backbone: {self.backbone} has changed since the sweep was planned; restore the file")
        object.__setattr__(self, "backbone_sha256", found)

    @property
    def dependence(self) -> Dependence:
        return Dependence.AFTER_FIRST if self.backbone is None else Dependence.INDEPENDENT

    def check_problem(self, layers: Sequence[Layer], num_labels: int, num_tasks: int) -> None:
        if self.backbone is not None:
            _read(_backbone_path(self.backbone), layers[:-1])

    def learn(self, problem: Problem, index: int, task: Task, parents: States, keep: Checkpoint = NOWHERE) -> Learned:
        layers, last = problem.layers[:-1], problem.layers[-1:]
        head = fresh_head(problem, index)
        if self.backbone is None and not parents:
            backbone = fresh_weights(problem)[:-1]
            fitted = fit(problem, index, task, keep, dense(problem, backbone + head))
            return fitted.learned(
                {**name_layer_tensors("backbone.", layers, backbone), **name_layer_tensors("head.", last, head)}
            )
        backbone = self._trunk(problem, parents)
        rule = Threshold(THRESHOLD)
        scores = [torch.full_like(weight, INITIAL_SCORE) for weight in backbone]
        trained = [Scored(w, s, rule) for w, s in zip(backbone, scores, strict=True)]
        trained_head = [Dense(weight) for weight in head]
        fitted = fit(problem, index, task, keep, [*trained, *trained_head], learning_rate=self.mask_learning_rate)
        bits = np.concatenate([(s >= THRESHOLD).flatten().cpu().numpy() for s in scores])
        blob = codec.encode(codec.pack(bits), bits.size, [s.numel() for s in scores])
        mask = torch.frombuffer(bytearray(blob), dtype=torch.uint8)
        return fitted.learned({"mask": mask, **name_layer_tensors("head.", last, head)})

    def _trunk(self, problem: Problem, states: States) -> list[Tensor]:
        """Returns the backbone's weights: from the file `backbone`, or from the first task's state if `backbone` is
        None."""
        if self.backbone is None:
            return load_layer_tensors(states[0], "backbone.", problem, problem.layers[:-1])
        return [w.to(problem.device) for w in _read(_backbone_path(self.backbone), problem.layers[:-1])]

    def learner(self, problem: Problem, states: States) -> Learner:
        backbone = self._trunk(problem, states)
        heads = [load_layer_tensors(state, "head.", problem, problem.layers[-1:]) for state in states]
        masks = [state.get("mask") for state in states]
        return WeightsLearner(problem, states, lambda mask: _masked(problem, backbone, masks[mask]) + heads[mask])


def _backbone_path(text: str) -> Path:
    path = user_path(text)
    if not text.startswith(("/", "~")):
        raise InputError(f"backbone: must be an absolute path that every worker can read, not {text}")
    if not path.is_file():
        raise InputError(f"backbone: {path} does not exist; put a safetensors file of the backbone's weights there")
    return path


def _sha256(path: Path) -> str:
    """Returns the SHA-256 of a file. The hash is cached until the file's modification time or size changes."""
    facts = path.stat()
    return _hashed(path, facts.st_mtime_ns, facts.st_size)


@functools.lru_cache
def _hashed(path: Path, changed: int, size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(path: Path, layers: Sequence[Layer]) -> list[Tensor]:
    """Reads the weights of `layers` from a safetensors file.

    Raises InputError if the file cannot be read, or if a weight is missing or has a wrong shape.
    """
    found: list[Tensor] = []
    try:
        with safetensors.safe_open(path, "pt") as file:
            names = set(file.keys())
            for layer in layers:
                if layer.name not in names:
                    raise InputError(
                        f"backbone: {path} has no tensor {layer.name}; name its tensors after the net's layers"
                    )
                found.append(file.get_tensor(layer.name).float())
    except (safetensors.SafetensorError, OSError) as error:
        raise InputError(f"backbone: {path}: is not a safetensors file ({error})") from error
    for layer, tensor in zip(layers, found, strict=True):
        if tensor.shape != layer.shape:
            raise InputError(
                f"backbone: {path}: {layer.name} has shape {tuple(tensor.shape)}, but the net's layer has "
                f"{layer.shape}; use the backbone of a net with the same layers"
            )
    return found
