"""Exports a finished run to a self-contained folder, and classifies images with the exported run.

The folder holds experiment.json, learned.safetensors and the user's modules.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from orchestrator.base.plain_values import from_node, to_node
from orchestrator.base.sealed_json import seal, unseal
from orchestrator.records.learned_tensors import provenance_here
from orchestrator.records.machine_kind import Provenance, check_weights
from orchestrator.results.loaded_run import LoadedRun
from orchestrator.spec import user_modules
from orchestrator.spec.experiment import Experiment, build_experiment
from orchestrator.sweeps.sweep import Sweep
from supsup_core.errors import CorruptError, InputError
from supsup_core.evaluation.protocol import answer
from supsup_core.methods import Learner

FORMAT = 1
"""The version of the format of an exported run's folder."""

_EXPERIMENT, _LEARNED = "experiment.json", "learned.safetensors"

_KEYS = ("format", "experiment", "seed", "num_states", "imports", "tasks", "masks", "numbers")
"""The keys of experiment.json. Earlier versions wrote the file with these keys and no checksum."""

_DIGEST = "learned_sha256"
"""The key of the SHA-256 of learned.safetensors."""


def export_run(sweep: Sweep, run: LoadedRun, folder: Path) -> None:
    """Write a run into an empty folder. Raises InputError if one of the user's modules cannot be copied."""
    for path, text in user_modules.sources(sweep.config.imports, sweep.imports_folder).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(text)
    names = [Path(entry).name for entry in sweep.config.imports]
    tensors = {f"{number}.{name}": t.contiguous() for number, s in enumerate(run.states) for name, t in s.items()}
    learned = folder / _LEARNED
    safetensors.torch.save_file(tensors, learned)
    values = (FORMAT, run.experiment.node, run.experiment.seed, len(run.states), names, run.tasks, run.masks,
              run.numbers)  # fmt: skip
    node = dict(zip(_KEYS, values, strict=True)) | {_DIGEST: _sha256(learned), "provenance": to_node(run.provenance)}
    (folder / _EXPERIMENT).write_bytes(seal(node))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class ExportedRun:
    """A learner loaded from a folder that `export_run` wrote.

    `provenance`: the kinds of the machines that computed the masks, and the hash of the frozen weights. Both are
    unknown if an earlier version of supsup exported the run.
    """

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        """Read the folder, and import the user's modules that it contains.

        Raises CorruptError if the folder is incomplete or damaged, or if its format is not FORMAT. Raises SupSupError
        if the installed libraries draw other frozen weights than those with which the masks were trained.
        """
        try:
            node, _ = unseal((folder / _EXPERIMENT).read_bytes(), _KEYS)
            if node["format"] != FORMAT:
                raise CorruptError(
                    f"{folder}: has format {node['format']}, but this version of supsup reads format {FORMAT}; run "
                    "`supsup export` again"
                )
            if node.get(_DIGEST) not in (None, _sha256(folder / _LEARNED)):
                raise ValueError(f"{_LEARNED} does not match its SHA-256")
            tensors = safetensors.torch.load_file(folder / _LEARNED)
            states: list[dict[str, Tensor]] = [{} for _ in range(node["num_states"])]
            for name, tensor in tensors.items():
                number, _, key = name.partition(".")
                states[int(number)][key] = tensor
            if any(Path(entry).name != entry for entry in node["imports"]):
                raise ValueError("`imports` names a module outside this folder")
            user_modules.load(node["imports"], folder)
            self.experiment: Experiment = build_experiment(node["experiment"], node["seed"])
            self.provenance = from_node(node.get("provenance", {}), Provenance)
            self._numbers = torch.tensor(node["numbers"], dtype=torch.int64)
            self._masks: dict[int, Sequence[int]] = dict(zip(node["tasks"], node["masks"], strict=True))
        except (OSError, ValueError, KeyError, IndexError, safetensors.SafetensorError) as error:
            raise CorruptError(
                f"{folder}: is not a complete exported run ({error}); run `supsup export` again"
            ) from error
        problem = self.experiment.problem(device)
        check_weights(folder, self.provenance, provenance_here(problem))
        self._learner: Learner = self.experiment.method.learner(problem, states)

    def answer(self, x: Tensor, task: int | None = None) -> tuple[Tensor, Tensor]:
        """Returns two tensors (images,): the label of each image, and the number of the mask used for the image.

        x: images (images, *input_shape), float32, normalised like the benchmark's images. task: the number of the task
        if the scenario gives the task at inference. If the scenario does not give the task, the task is inferred as in
        the run's evaluation. Each `decision_group` consecutive images must then belong to one task. Raises InputError
        if the scenario gives the task and `task` is None or was not learned, or if the scenario infers the task and
        `task` is set.
        """
        given = None
        if self.experiment.scenario.given_at_inference:
            if not self._masks.get(-1 if task is None else task):
                known = f"0 to {len(self._masks) - 1}"
                raise InputError(
                    f"task: must be a number from {known}, because scenario {self.experiment.scenario.name} does not "
                    "infer the task"
                )
            given = self._masks[task or 0][0]
        elif task is not None:
            raise InputError(f"task: scenario {self.experiment.scenario.name} infers the task; remove this argument")
        with torch.inference_mode(False):
            labels, places = answer(self._learner, x, self.experiment.inference, given)
        return labels, self._numbers[places]
