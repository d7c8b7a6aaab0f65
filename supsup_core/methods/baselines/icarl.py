"""iCaRL: stored exemplars, distillation, and classification by the nearest exemplar mean (Rebuffi et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from supsup_core import seeding
from supsup_core.errors import CorruptError, InputError
from supsup_core.field_limits import MOST_IMAGES, check_limits, limited
from supsup_core.methods.base import METHODS, SHARED, ChecksProblem, Dependence, Learned, Method, Problem, States
from supsup_core.methods.fitting import dense, fresh_head, fresh_weights
from supsup_core.methods.layer_tensors import load_layer_tensors, name_layer_tensors
from supsup_core.methods.learners import Learner
from supsup_core.methods.norm_statistics import load_norms, measure_norms
from supsup_core.nets.base import Layer
from supsup_core.tasks.base import Task, TrainingPart
from supsup_core.training.checkpoint import NOWHERE, Checkpoint
from supsup_core.training.loop import Step, train

_CHUNK = 512


def features(problem: Problem, trunk: Sequence[Tensor], norms: Sequence[Tensor], x: Tensor) -> Tensor:
    """Returns the feature vectors of images x, (images, features): the last layer's inputs, scaled to length 1.

    norms: the net's batch-normalisation statistics, or [] if the net has none.
    """
    last = problem.layers[-1]
    identity = torch.eye(last.shape[1], device=problem.device)
    rows = [problem.net.forward([*trunk, identity, *norms], part.to(problem.device)) for part in torch.split(x, _CHUNK)]
    return torch.nn.functional.normalize(torch.cat(rows), dim=1)


def herd(rows: Tensor, count: int) -> Tensor:
    """Chooses `count` of the rows (n, features) by herding, and returns their int64 indices in order of choice.

    Each chosen row brings the mean of the chosen rows as near as possible to the mean of all rows.
    """
    mean = rows.mean(0)
    total = torch.zeros_like(mean)
    free = torch.ones(len(rows), dtype=torch.bool, device=rows.device)
    chosen = []
    for number in range(1, min(count, len(rows)) + 1):
        distances = (mean - (total + rows) / number).square_().sum(1)
        best = int(distances.masked_fill_(~free, torch.inf).argmin())
        free[best] = False
        total += rows[best]
        chosen.append(best)
    return torch.tensor(chosen, dtype=torch.int64)


@dataclass(frozen=True)
class Exemplars:
    """Exemplars: stored images (count, *shape) of earlier tasks, and the class number of each image, (count,).

    The number of a class is task * num_labels + label. The images of each class are in herding order.
    """

    images: Tensor
    classes: Tensor

    def first(self, count: int) -> Exemplars:
        """The first `count` exemplars of each class."""
        kept = [torch.nonzero(self.classes == c).flatten()[:count] for c in sorted(set(self.classes.tolist()))]
        rows = torch.cat(kept) if kept else torch.zeros(0, dtype=torch.int64)
        return Exemplars(self.images[rows], self.classes[rows])


@final
class _WithExemplars(TrainingPart):
    """A task's training images, followed by the exemplars of earlier tasks. An image's label is its class number.

    The class numbers of the task's own images begin at `offset`.
    """

    def __init__(self, task: Task, exemplars: Exemplars, offset: int) -> None:
        self._task = task
        self._exemplars = exemplars
        self._offset = offset
        self.num_train = task.num_train + len(exemplars.classes)

    def train_batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        new = indices < self._task.num_train
        x, y = self._task.plain_train_batch(indices[new])
        old = indices[~new] - self._task.num_train
        images = torch.cat([x, self._exemplars.images[old]])
        return self._task.augment(images, indices), torch.cat([y + self._offset, self._exemplars.classes[old]])


@final
class ICaRLLearner(Learner):
    """Predicts the class whose exemplars have the nearest mean feature vector.

    Each class of the given task has one logit: minus the squared distance between the image's feature vector and the
    class's mean. The mean is scaled to length 1.
    """

    def __init__(
        self, problem: Problem, num_tasks: int, trunk: Sequence[Tensor], norms: Sequence[Tensor], exemplars: Exemplars
    ) -> None:
        self._problem = problem
        self._trunk = trunk
        self._norms = norms
        self.num_masks = num_tasks
        self.num_labels = problem.num_labels
        self.normalises_by_batch = problem.net.normalises_by_batch
        found = features(problem, trunk, norms, exemplars.images)
        classes = exemplars.classes.to(found.device)
        means = [found[classes == c].mean(0) for c in range(num_tasks * self.num_labels)]
        self._means = torch.nn.functional.normalize(torch.stack(means), dim=1)

    def logits(self, x: Tensor, mask: int) -> Tensor:
        own = self._means[mask * self.num_labels : (mask + 1) * self.num_labels]
        distances = torch.cdist(features(self._problem, self._trunk, self._norms, x), own).square_()
        return distances.neg_().nan_to_num_(nan=-torch.inf).to(x.device)


@final
@METHODS.register("icarl")
@dataclass(frozen=True, kw_only=True)
class ICaRL(Method, ChecksProblem):
    """Trains one net for all classes, on the new task's images and on stored exemplars of earlier classes.

    Targets for the earlier classes are the outputs of the net from before the task (distillation). `num_exemplars`: the
    number of exemplars of all classes together, divided evenly among the classes met so far. To choose the nearest mean
    among all classes in scenario GNu (task not given at inference), set inference.rule=exhaustive,
    inference.objective=max_logit and inference.decision_group=1.
    """

    scenarios: ClassVar[frozenset[str]] = frozenset({"GG", "GNu"})
    superposes: ClassVar[bool] = False
    trains_layers: ClassVar[bool] = True

    num_exemplars: int = limited(2000, least=1, most=MOST_IMAGES)

    def __post_init__(self) -> None:
        check_limits(self)

    @property
    def dependence(self) -> Dependence:
        return Dependence.SEQUENTIAL

    def learn(self, problem: Problem, index: int, task: Task, parents: States, keep: Checkpoint = NOWHERE) -> Learned:
        num_labels, layers = problem.num_labels, problem.layers[:-1]
        per_class = self._per_class((index + 1) * num_labels)
        missing = sorted(set(range(num_labels)) - set(task.train_labels().tolist()))
        if missing:
            raise InputError(
                f"benchmark: task {index} has no training image of label {missing[0]}, and iCaRL needs images of every "
                "label; for a split benchmark, set benchmark.labels=own"
            )
        old_trunk, old_head, exemplars = self._load(problem, index, parents)
        trunk = [weight.clone() for weight in old_trunk] if parents else fresh_weights(problem)[:-1]
        head = torch.cat([old_head, fresh_head(problem, index)[0][:num_labels]])
        old_norms = load_norms(parents[0], problem, SHARED) if parents else []
        rehearsed = _WithExemplars(task, exemplars, index * num_labels)

        def loss_gradients(weights: Sequence[Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, list[Tensor]]:
            leaves = [weight.detach().requires_grad_() for weight in weights]
            targets = torch.nn.functional.one_hot(y, len(head)).float()
            if parents:
                with torch.no_grad():
                    before = problem.net.forward([*old_trunk, old_head, *old_norms], x)
                    targets[:, : len(old_head)] = before.sigmoid()
            loss = torch.nn.functional.binary_cross_entropy_with_logits(problem.net.forward(leaves, x), targets)
            return loss.detach(), list(torch.autograd.grad(loss, leaves))

        recipe = problem.recipe
        drawn = seeding.batches(problem.order_seed(index), rehearsed.num_train, recipe.num_batches, recipe.batch_size)
        step = Step(dense(problem, [*trunk, head]), recipe, loss_gradients)
        curve = train(rehearsed, torch.from_numpy(drawn), step, checkpoint=keep)
        norms = measure_norms(problem, index, rehearsed, [*trunk, head], SHARED)
        fixed = [*trunk], load_norms(norms, problem, SHARED)
        kept = self._choose_exemplars(problem, fixed, task, index, per_class, exemplars)
        return Learned(
            {
                **norms, **name_layer_tensors(SHARED, layers, trunk), f"{SHARED}head": head,
                f"{SHARED}exemplars": kept.images, f"{SHARED}classes": kept.classes,
            },
            curve,
        )  # fmt: skip

    def check_problem(self, layers: Sequence[Layer], num_labels: int, num_tasks: int) -> None:
        self._per_class(num_tasks * num_labels)

    def _per_class(self, num_classes: int) -> int:
        """Returns the number of exemplars per class. Raises InputError if there are fewer exemplars than classes."""
        if self.num_exemplars < num_classes:
            raise InputError(
                f"num_exemplars: {self.num_exemplars} exemplars are fewer than the {num_classes} classes; "
                f"set at least {num_classes}, or lower benchmark.num_tasks"
            )
        return self.num_exemplars // num_classes

    def _load(self, problem: Problem, num_tasks: int, states: States) -> tuple[list[Tensor], Tensor, Exemplars]:
        """Reads the trunk, the head and the exemplars after `num_tasks` tasks from the last of `states`.

        Returns an empty trunk, an empty head and no exemplars if `states` is empty.
        """
        if not states:
            width = problem.layers[-1].shape[1]
            empty = torch.zeros(0, *problem.input_shape), torch.zeros(0, dtype=torch.int64)
            return [], torch.zeros(0, width, device=problem.device), Exemplars(*empty)
        state = states[-1]
        trunk = load_layer_tensors(state, SHARED, problem, problem.layers[:-1])
        try:
            found = [state[f"{SHARED}{name}"] for name in ("head", "exemplars", "classes")]
        except KeyError as error:
            raise CorruptError(f"the stored state of a task has no {error.args[0]}") from error
        if len(found[0]) != num_tasks * problem.num_labels:
            raise CorruptError(
                f"the stored state of a task has {len(found[0])} classes, not those of {num_tasks} tasks"
            )
        return trunk, found[0].to(problem.device), Exemplars(found[1], found[2])

    def _choose_exemplars(
        self,
        problem: Problem,
        fixed: tuple[Sequence[Tensor], Sequence[Tensor]],
        task: Task,
        index: int,
        per_class: int,
        before: Exemplars,
    ) -> Exemplars:
        """Returns the exemplars to store after task `index`, up to `per_class` of each class.

        Keeps the first exemplars of each earlier class, and chooses the exemplars of each new class by herding. fixed:
        the trunk, and the batch-normalisation statistics. before: the exemplars of earlier tasks.
        """
        kept = before.first(per_class)
        images, classes = [kept.images], [kept.classes]
        everything = torch.arange(task.num_train)
        parts = [features(problem, *fixed, task.plain_train_batch(part)[0]) for part in torch.split(everything, _CHUNK)]
        found, labels = torch.cat(parts), task.train_labels()
        for label in range(problem.num_labels):
            own = torch.nonzero(labels == label).flatten()
            chosen = own[herd(found[own.to(found.device)], per_class)]
            images.append(task.plain_train_batch(chosen)[0])
            classes.append(torch.full((len(chosen),), index * problem.num_labels + label))
        return Exemplars(torch.cat(images), torch.cat(classes))

    def learner(self, problem: Problem, states: States) -> Learner:
        trunk, _, exemplars = self._load(problem, len(states), states)
        return ICaRLLearner(problem, len(states), trunk, load_norms(states[-1], problem, SHARED), exemplars)
