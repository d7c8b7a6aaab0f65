"""The facts of an artifact (metadata beside its tensors), as plain JSON values."""

from __future__ import annotations

import json
from dataclasses import MISSING, fields
from typing import Any, get_args

import pytest

from orchestrator.records.facts import Facts, facts_from_node, facts_to_node
from supsup_core.errors import CorruptError
from tests.records.samples import EVALUATED, TRAINED, UNFINISHED, VERSION

ALL: tuple[Facts, ...] = (TRAINED, EVALUATED, UNFINISHED, VERSION)
EVERY_KIND = pytest.mark.parametrize("facts", ALL, ids=lambda facts: facts.kind)


def test_there_is_a_sample_of_every_kind() -> None:
    assert {type(facts) for facts in ALL} == set(get_args(Facts))


@EVERY_KIND
def test_facts_are_read_back_from_json(facts: Facts) -> None:
    node = json.loads(json.dumps(facts_to_node(facts)))
    assert node["kind"] == facts.kind
    assert facts_from_node(node) == facts
    assert facts_from_node({**node, "of_a_later_version": 1}) == facts


@EVERY_KIND
def test_facts_without_one_of_their_fields_are_corrupt(facts: Facts) -> None:
    node = facts_to_node(facts)
    optional = {field.name for field in fields(facts) if field.default is not MISSING}
    assert "machines" in optional  # artifacts of earlier versions lack it
    for name in node.keys() - optional:
        with pytest.raises(CorruptError, match="the artifact's facts"):
            facts_from_node({key: value for key, value in node.items() if key != name})


@pytest.mark.parametrize("node", [None, 5, "trained", [], {}, {"kind": "other"}, {"kind": ["trained"]}, {"kind": None}])
def test_facts_of_an_unknown_kind_are_corrupt(node: Any) -> None:
    with pytest.raises(CorruptError, match="have a kind that this version of supsup does not know"):
        facts_from_node(node)


def test_counts_of_a_learner_without_a_hopfield_memory_omit_the_fields_of_the_memory() -> None:
    """So the bytes and the hashes of these artifacts are the same as in earlier versions."""
    results = facts_to_node(EVALUATED)["results"]
    assert "recovered" not in results["paper"]
    assert results["strict"]["recovered"] == 3
