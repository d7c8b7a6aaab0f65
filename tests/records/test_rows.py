"""The events of a ledger, as JSON."""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.records.rows import Event, RoundsCommitted, TasksMet, event_from_json, event_to_node
from supsup_core.errors import CorruptError
from tests.records.samples import DECIDED, EVENTS, TRAINED

EVERY_EVENT = pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)


def payload(event: Event) -> bytes:
    return json.dumps(event_to_node(event)).encode()


def test_there_is_a_sample_of_every_kind_of_event() -> None:
    kinds = get_args(Event)
    assert {type(event) for event in EVENTS} == set(kinds)
    assert len({kind.kind for kind in kinds}) == len(kinds)


@EVERY_EVENT
def test_an_event_is_read_back_as_it_was(event: Event) -> None:
    found = event_from_json(event.kind, payload(event))
    assert type(found) is type(event)
    assert found == event


@EVERY_EVENT
def test_keys_of_a_later_version_are_ignored(event: Event) -> None:
    node = {**event_to_node(event), "of_a_later_version": {"any": ["thing"]}}
    assert event_from_json(event.kind, json.dumps(node).encode()) == event


@EVERY_EVENT
@pytest.mark.parametrize("wrong", [[], "text", {"any": "thing"}, {"key": 5}], ids=str)
def test_a_field_of_the_wrong_type_is_corrupt(event: Event, wrong: Any) -> None:
    first = fields(event)[0].name
    node = {**event_to_node(event), first: None if event_to_node(event)[first] == wrong else wrong}
    if isinstance(wrong, list) and event.kind == "retry":
        node[first] = {}
    if isinstance(wrong, str) and isinstance(event_to_node(event)[first], str):
        node[first] = 5
    with pytest.raises(CorruptError, match=f"not a valid row of kind '{event.kind}'"):
        event_from_json(event.kind, json.dumps(node).encode())


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"{}", b"\xff", b'{"key": 1}', b"[" * 10_000])
def test_a_payload_that_is_not_an_event_is_corrupt(text: bytes) -> None:
    with pytest.raises(CorruptError):
        event_from_json("trained", text)


def test_an_unknown_kind_is_corrupt() -> None:
    with pytest.raises(CorruptError, match="this version of supsup knows no row of kind 'later'"):
        event_from_json("later", b"{}")


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_values_that_are_not_finite_are_read_back(value: float) -> None:
    """A training loss can be NaN, which Python's json module writes as NaN."""
    found = event_from_json("decision", json.dumps({**event_to_node(DECIDED), "loss": value}).encode())
    assert found == replace(DECIDED, loss=value) or (math.isnan(value) and math.isnan(getattr(found, "loss", 0.0)))


def test_integers_are_read_as_floats_in_float_fields() -> None:
    found = event_from_json("met", b'{"num_learned": 1, "metrics": {"masks": 2}, "latency": 0, "seconds": 3}')
    assert found == TasksMet(1, {"masks": 2.0}, 0.0, 3.0)


@given(
    st.integers(0, 10**9),
    st.dictionaries(st.integers(0, 10**6), st.text(max_size=20), max_size=5),
    st.integers(0, 2**63 - 1),
    st.floats(allow_nan=False),
)
def test_any_commit_is_read_back(rounds: int, versions: dict[int, str], num_bytes: int, seconds: float) -> None:
    event = RoundsCommitted(rounds, versions, num_bytes, seconds, seconds)
    assert event_from_json("committed", payload(event)) == event


@given(st.dictionaries(st.sampled_from([field.name for field in fields(TRAINED)]), st.none() | st.text() | st.floats()))
def test_any_facts_are_read_or_refused(changes: dict[str, Any]) -> None:
    node = event_to_node(next(event for event in EVENTS if event.kind == "trained"))
    node["facts"] = {**node["facts"], **changes}
    try:
        found = event_from_json("trained", json.dumps(node).encode())
    except CorruptError:
        return
    assert found.kind == "trained"
