"""Calibration of the masks of finished runs, and how well a mask's confidence separates its task from other tasks.

    supsup sweep sweeps/confidence.yaml
    python -m bench.confidence OUTPUT [SWEEP]

The command prints one summary for each training group, and writes the numbers of every mask to confidence.json in the
sweep's folder. A mask is tested on 1000 test images of its own task and on about 1000 test images of the other tasks.
Every other task contributes the same number of images, and the seed determines the images.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from orchestrator.base.output_folder import OutputFolder
from orchestrator.results.loaded_run import LoadedRun, load_run
from orchestrator.sweeps.sweep import find_sweep
from supsup_core import seeding
from supsup_core.evaluation.confidence import Confidence, confidence

IMAGES = 1000
OBJECTIVES = ("entropy", "max_logit", "energy")


def measure(run: LoadedRun) -> list[Confidence]:
    """Returns the confidence of each task's mask. If several masks belong to a task, only the first is measured."""
    benchmark, seed = run.experiment.benchmark, run.experiment.seed
    images: list[tuple[Tensor, Tensor]] = []
    for number in run.tasks:
        task = benchmark.task(number, run.dataset, seed)
        drawn = seeding.permutation(seeding.child_seed(seed, "confidence", number), task.num_test)[:IMAGES]
        images.append(task.test_batch(torch.from_numpy(drawn)))
    share = -(-IMAGES // max(1, len(images) - 1))
    found = []
    for place, masks in enumerate(run.masks):
        if masks:
            others = torch.cat([x[:share] for other, (x, _) in enumerate(images) if other != place])
            found.append(confidence(run.learner, masks[0], images[place], others, OBJECTIVES))
    return found


def summary(name: str, masks: Sequence[Confidence]) -> dict[str, Any]:
    """Returns the means over all masks, and the largest calibration error of any mask."""
    nodes = [asdict(mask) for mask in masks]
    fields = ("accuracy", "confidence", "calibration_error", "entropy", "entropy_of_others")
    means = {field: statistics.fmean(node[field] for node in nodes) for field in fields}
    apart = {name: statistics.fmean(mask.told_apart[name] for mask in masks) for name in OBJECTIVES}
    worst = max(mask.calibration_error for mask in masks)
    return {"name": name, "masks": len(masks), **means, "worst_calibration_error": worst, "told_apart": apart}


if __name__ == "__main__":
    torch.set_num_threads(1)
    sweep = find_sweep(OutputFolder(Path(sys.argv[1]).absolute()), sys.argv[2] if len(sys.argv) > 2 else None)
    summaries, details = [], {}
    for group in sweep.plan():
        masks = measure(load_run(sweep, group, group.runs[0]))
        summaries.append(summary(group.runs[0].name, masks))
        details[group.runs[0].name] = [asdict(mask) for mask in masks]
    (sweep.folder.path / "confidence.json").write_text(json.dumps(details, indent=1))
    print(json.dumps({"confidence": summaries}, indent=1))
