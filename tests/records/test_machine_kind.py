"""Machine kinds: what they record, and the check that stored masks belong to the frozen weights of this process."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.base.plain_values import from_node, to_node
from orchestrator.records.facts import TrainedFacts, UnfinishedFacts, provenance_of
from orchestrator.records.machine_kind import (
    NOT_RECORDED,
    UNKNOWN,
    Machines,
    Provenance,
    check_weights,
    joined,
)
from supsup_core.errors import SupSupError
from tests.records.samples import EVALUATED, ONE_KIND, OTHER_KIND, TRAINED, UNFINISHED, VERSION


def test_a_kind_in_words_names_everything_that_can_change_bits() -> None:
    assert str(ONE_KIND) == (
        "AMD EPYC (family 26, model 2), AVX512+BF16, 1 thread, torch 2.13.0+cpu, numpy 2.4.6, numba 0.68.1, "
        "Python 3.11.7, kernels: matmul oneDNN · rmsprop compiled · top_k compiled · mask_products permutation of 16"
    )
    assert str(NOT_RECORDED) == "not recorded (computed by an earlier version of supsup)"


def test_kinds_are_joined_in_one_order_and_without_duplicates() -> None:
    assert joined([OTHER_KIND], [ONE_KIND, OTHER_KIND], UNKNOWN) == Machines([NOT_RECORDED, ONE_KIND, OTHER_KIND])
    apart = joined(*[[kind] for kind in (ONE_KIND, NOT_RECORDED, OTHER_KIND)])
    assert list(apart) == [NOT_RECORDED, ONE_KIND, OTHER_KIND]
    here = Provenance(Machines([OTHER_KIND]), "ab")
    assert here.with_machines([ONE_KIND]) == Provenance(Machines([ONE_KIND, OTHER_KIND]), "ab")


def test_kinds_are_stored_as_texts_and_read_in_the_earlier_form_too() -> None:
    machines = Machines([ONE_KIND, OTHER_KIND])
    stored = to_node(UNFINISHED) | {"machines": machines.to_plain()}
    assert all(isinstance(text, str) for text in machines.to_plain())
    assert from_node(stored, UnfinishedFacts).machines == machines
    earlier = stored | {"machines": [to_node(kind) for kind in machines]}
    assert from_node(earlier, UnfinishedFacts).machines == machines
    for wrong in ("text", [3], ["no JSON"], ['{"threads": "one"}'], [{"threads": "one"}]):
        with pytest.raises(ValueError):  # noqa: PT011 - the messages are those of msgspec
            from_node(stored | {"machines": wrong}, UnfinishedFacts)


def test_pickled_kinds_are_equal_and_are_decoded_once_per_process() -> None:
    pickled = pickle.dumps(Machines([ONE_KIND, OTHER_KIND]))
    read = pickle.loads(pickled)
    assert read == Machines([OTHER_KIND, ONE_KIND])
    assert hash(read) == hash(Machines([ONE_KIND, OTHER_KIND]))
    assert pickle.loads(pickled) is read


@pytest.mark.parametrize("facts", [TRAINED, UNFINISHED, VERSION], ids=lambda facts: facts.kind)
def test_masks_of_other_frozen_weights_are_refused_with_both_versions(facts: TrainedFacts) -> None:
    here = Provenance(Machines([replace(ONE_KIND, torch="3.0.0")]), "1" * 64)
    with pytest.raises(SupSupError) as refused:
        check_weights(Path("store/ab.safetensors"), provenance_of(facts), here)
    message = str(refused.value)
    assert message.startswith(
        "store/ab.safetensors: this result belongs to other frozen weights than this process draws"
    )
    assert "\n" not in message
    theirs, ours = message.split("but this process has")
    assert ("torch 2.13.0+cpu, numpy 2.4.6" if facts.machines != UNKNOWN else "torch 2.9.0, Python 3.11.7") in theirs
    assert "torch 3.0.0, numpy 2.4.6, numba 0.68.1, Python 3.11.7" in ours
    check_weights(Path("store"), provenance_of(facts), replace(here, weights_sha256=facts.weights_sha256))


def test_weights_that_were_not_recorded_are_not_refused() -> None:
    here = Provenance(Machines([ONE_KIND]), "1" * 64)
    check_weights(Path("store"), provenance_of(replace(VERSION, weights_sha256="")), here)
    check_weights(Path("store"), provenance_of(EVALUATED), here)
