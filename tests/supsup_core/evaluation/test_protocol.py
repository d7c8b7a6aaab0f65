"""Evaluation in both protocols, and settings that do not fit together."""

import itertools

import pytest
import torch
from torch import Tensor

from supsup_core.errors import InputError
from supsup_core.evaluation.protocol import Inference, answer, check, evaluate, order_of_test_images
from supsup_core.inference import RULES, Rule
from supsup_core.methods import METHODS, Learner
from supsup_core.nets import NETS
from supsup_core.nets.base import Objective
from supsup_core.scenarios import SCENARIOS, scenario
from supsup_core.tasks import Task


class Numbers(Task):
    """A task whose image i is the number i, with label i mod 10."""

    num_train = 10
    num_test = 300

    def train_batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        return self.test_batch(indices)

    def test_batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        return indices[:, None].float(), indices % 10


class Parrot(Learner):
    """A learner with two masks: mask 0 is always right, mask 1 answers 3 for every image."""

    num_masks = 2
    num_labels = 10

    def logits(self, x: Tensor, mask: int) -> Tensor:
        answer = x[:, 0].long() % 10 if mask == 0 else torch.full((len(x),), 3)
        return torch.nn.functional.one_hot(answer, 12).float()


class ByParity(Rule):
    """A rule that chooses mask 0 if the first image is even, and mask 1 if it is odd."""

    needs_superposition = False

    def choose(self, learner: Learner, x: Tensor, objective: Objective, given: int | None) -> Tensor:
        return x[:, 0, 0].long() % 2


@pytest.fixture
def by_parity(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(RULES._entries, "by_parity", ByParity)
    return "by_parity"


@pytest.mark.parametrize(("deciding", "sizes"), [(1, [299, 1]), (2, [300])])
def test_a_single_remaining_image_joins_the_previous_group_if_several_images_decide(
    by_parity: str, deciding: int, sizes: list[int]
) -> None:
    inference = Inference(rule=by_parity, images_per_decision=deciding, decision_group=299, strict_images=0)
    found = evaluate(Parrot(), Numbers(), 0, SCENARIOS["GNu"], inference, seed=0)
    assert found["paper"].sizes.tolist() == sizes


def test_paper_protocol_lets_the_first_image_decide_for_its_group(by_parity: str) -> None:
    inference = Inference(rule=by_parity, decision_group=75, strict_images=0)
    found = evaluate(Parrot(), Numbers(), 0, SCENARIOS["GNu"], inference, seed=0)
    assert set(found) == {"paper"}
    groups = order_of_test_images(Numbers(), 0, 0).split(75)
    chosen = [int(group[0]) % 2 for group in groups]
    correct = [int((group % 10 == 3).sum()) if mask else 75 for group, mask in zip(groups, chosen, strict=True)]
    right = chosen.count(0)
    assert 0 < right < 4
    assert found["paper"].chosen.tolist() == chosen
    assert found["paper"].sizes.tolist() == [75] * 4
    assert found["paper"].correct.tolist() == correct
    assert found["paper"].counts([0]).to_node() == {
        "images": 300, "correct": sum(correct), "correct_and_right_task": 75 * right,
        "decisions": 4, "right_task": right, "confusion": {"0": right, "1": 4 - right},
    }  # fmt: skip


def test_groups_are_shuffled_by_the_seed() -> None:
    orders = [order_of_test_images(Numbers(), index, seed).tolist() for index, seed in ((0, 0), (0, 0), (1, 0), (0, 1))]
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]
    assert orders[0] != orders[3]
    for order in orders:
        assert sorted(order) == list(range(300))
        assert sum(second - first == 1 for first, second in itertools.pairwise(order)) < 10


def test_strict_protocol_lets_every_sampled_image_decide_for_itself(by_parity: str) -> None:
    inference = Inference(rule=by_parity, strict_images=50)
    first = evaluate(Parrot(), Numbers(), 0, SCENARIOS["GNs"], inference, seed=1)["strict"]
    assert first.sizes.tolist() == [1] * 50
    assert 0 < int(first.chosen.sum()) < 50
    assert bool((first.correct[first.chosen == 0] == 1).all())
    again = evaluate(Parrot(), Numbers(), 0, SCENARIOS["GNs"], inference, seed=1)["strict"]
    other = evaluate(Parrot(), Numbers(), 0, SCENARIOS["GNs"], inference, seed=2)["strict"]
    assert torch.equal(first.chosen, again.chosen)
    assert not torch.equal(first.chosen, other.chosen)


def test_a_last_group_shorter_than_the_deciding_images_still_decides(by_parity: str) -> None:
    inference = Inference(rule=by_parity, images_per_decision=64, decision_group=64, strict_images=0)
    found = evaluate(Parrot(), Numbers(), 0, SCENARIOS["GNu"], inference, seed=0)["paper"]
    assert found.sizes.tolist() == [64, 64, 64, 64, 44]


def test_a_given_task_is_not_inferred() -> None:
    found = evaluate(Parrot(), Numbers(), 1, SCENARIOS["GG"], Inference(rule="known"), seed=0)
    assert set(found) == {"paper"}
    assert set(found["paper"].chosen.tolist()) == {1}
    assert int(found["paper"].correct.sum()) == 30


@pytest.mark.parametrize(
    ("scenario_name", "inference", "outputs", "message"),
    [
        ("GNu", Inference(), (5, 10), "5 outputs cannot tell 10 labels apart"),
        ("GNu", Inference(rule="known"), (100, 10), "known needs the task identity"),
        ("GNu", Inference(objective="G"), (10, 10), "needs superfluous neurons"),
        ("GNu", Inference(rule="exhaustive", objective="G"), (100, 10), "compared only by its gradient"),
        ("GNu", Inference(rule="hopfield"), (100, 10), "not store its masks in a Hopfield network"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(
    scenario_name: str, inference: Inference, outputs: tuple[int, int], message: str
) -> None:
    net = NETS["lenet_300_100"](num_outputs=outputs[0])
    with pytest.raises(InputError, match=message):
        check(SCENARIOS[scenario_name], METHODS["supsup"](), "supsup", inference, net, outputs[1])


@pytest.mark.parametrize(
    "fields", [{"rule": "oneshot"}, {"objective": "entropi"}, {"images_per_decision": 0}, {"decision_group": 0}]
)
def test_invalid_inference_fields_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(InputError):
        Inference(**fields)


@pytest.mark.parametrize(("deciding", "group"), [(1, 4), (3, 4), (4, 5), (1, 7)])
def test_answer_gives_the_labels_of_evaluate(by_parity: str, deciding: int, group: int) -> None:
    inference = Inference(rule=by_parity, images_per_decision=deciding, decision_group=group, strict_images=0)
    x, y = Numbers().test_batch(order_of_test_images(Numbers(), 0, 0))
    labels, masks = answer(Parrot(), x, inference)
    decisions = evaluate(Parrot(), Numbers(), 0, scenario("GNu"), inference, 0)["paper"]
    assert torch.repeat_interleave(decisions.chosen, decisions.sizes).tolist() == masks.tolist()
    assert int((labels == y).sum()) == int(decisions.correct.sum())
    given, _ = answer(Parrot(), x, Inference(rule="known"), given=1)
    assert given.tolist() == Parrot().predict(x, 1).tolist()
