"""HopSupSup on SplitMNIST: accuracy with the right mask and with the recovered one, and how the recovery goes.

    python -m bench.hopfield [SEEDS] [FOLDER] [real|sign]     # needs MNIST; writes hopfield.json and hopfield.png

A task's test images are halved: one half recovers the mask (batches of 64, thirty steps, taken round and round), the
other is answered with it. A batch of 64 of the other half counts as recovered when the mask is the right one, bit
for bit.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import torch
from torch import Tensor

from supsup_core import seeding
from supsup_core.benchmarks import BENCHMARKS, Dataset
from supsup_core.inference import OBJECTIVES
from supsup_core.methods import METHODS, Problem
from supsup_core.methods.hop_sup_sup import HopfieldLearner
from supsup_core.nets import NETS
from supsup_core.training import TrainingRecipe

TASKS, BATCH = 5, 128


def one_seed(seed: int, dataset: Dataset, gates: str) -> dict[str, Any]:
    """Every task of one seed: accuracies and hamming distances to the right mask, step by step."""
    benchmark = BENCHMARKS["split"](base="mnist", num_tasks=TASKS, labels="base", order="given")
    method = METHODS["hop_sup_sup"](recovery_gates=gates)
    tasks = [benchmark.task(index, dataset, seed) for index in range(TASKS)]
    states, net = [], NETS["hopfield_mlp"](num_outputs=10)
    for index, task in enumerate(tasks):
        recipe = TrainingRecipe(
            optimizer="sgd", learning_rate=0.1, batch_size=BATCH, num_batches=round(task.num_train / BATCH)
        )
        problem = Problem(net, (28, 28), 10, recipe, seed)
        states.append(method.learn(problem, index, task, []).state)
    learner = method.learner(problem, states)
    assert isinstance(learner, HopfieldLearner)
    found: dict[str, Any] = {"seed": seed, "right": [], "recovered": [], "distances": []}
    for index, task in enumerate(tasks):
        x, y = task.all_test()
        drawn = torch.from_numpy(seeding.permutation(seeding.child_seed(seed, "halves", index), len(y)))
        first, second = drawn[: len(y) // 2], drawn[len(y) // 2 :]
        curve: list[int] = []

        def watch(z: Sequence[Tensor], curve: list[int] = curve, index: int = index) -> None:
            curve.append(learner.distances([part.detach() for part in z])[index])

        gates = learner.recovered(x[first], OBJECTIVES["entropy"], watch)
        for name, patterns in (("right", learner.patterns[index]), ("recovered", gates)):
            found[name].append(float((learner.answers(x[second], patterns) == y[second]).double().mean()))
        found["distances"].append(curve)
    return found


def picture(results: Sequence[dict[str, Any]], path: Path) -> None:
    """Hamming distance to the right mask over the steps, a line for each task and seed."""
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for found in results:
        for curve in found["distances"]:
            axes.plot(curve, color="C0" if curve[-1] == 0 else "C3", alpha=0.4, linewidth=0.8)
    axes.set(xlabel="step of the descent", ylabel="units that differ from the right mask", ylim=(0, None))
    figure.savefig(path, dpi=120)


def measure(num_seeds: int, folder: Path, gates: str) -> dict[str, Any]:
    """All seeds, and their means."""
    torch.set_num_threads(1)
    root = os.environ.get("SUPSUP_DATA")
    dataset = BENCHMARKS["split"](base="mnist").source().load(Path(root) if root else None)
    results = []
    for seed in range(num_seeds):
        results.append(one_seed(seed, dataset, gates))
        print(
            json.dumps({key: results[-1][key] for key in ("seed", "right", "recovered")}), file=sys.stderr, flush=True
        )
    means = {name: [statistics.mean(found[name]) for found in results] for name in ("right", "recovered")}
    ends = [curve[-1] == 0 for found in results for curve in found["distances"]]
    summary = {
        name: {"mean": statistics.mean(values), "least": min(values), "stdev": statistics.pstdev(values)}
        for name, values in means.items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    picture(results, folder / "hopfield.png")
    (folder / "hopfield.json").write_text(json.dumps({"summary": summary, "seeds": results}, indent=1))
    return {**summary, "masks_recovered": sum(ends) / len(ends)}


if __name__ == "__main__":
    given = [*sys.argv[1:], *("20", ".", "real")[len(sys.argv) - 1 :]]
    print(json.dumps(measure(int(given[0]), Path(given[1]), given[2]), indent=1))
