"""Sealed JSON files: any changed value is found, and files without a checksum are read only with known keys."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.base.sealed_json import CHECKSUM, seal, unseal

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
NODES = st.dictionaries(st.text().filter(lambda key: key != CHECKSUM), PLAIN, max_size=5)


@given(NODES)
def test_values_are_read_as_they_were_written(node: dict[str, object]) -> None:
    assert unseal(seal(node)) == (json.loads(json.dumps(node)), True)


def test_every_flipped_bit_is_found_or_changes_no_value() -> None:
    node = {"format": 3, "config": {"seeds": [0, 1], "learning_rate": 1e-4}, "file": "a.yaml", "storage": None}
    content = seal(node)
    found = 0
    for at in range(len(content)):
        for bit in range(8):
            changed = bytearray(content)
            changed[at] ^= 1 << bit
            try:
                read, _ = unseal(bytes(changed), node)
            except ValueError:
                found += 1
            else:
                assert read == node
    assert found > 7 * len(content)


def test_a_file_without_a_checksum_is_read_only_with_the_keys_of_earlier_versions() -> None:
    assert unseal(b'{"format": 3}', ["format", "storage"]) == ({"format": 3}, False)
    with pytest.raises(ValueError, match="it has no checksum, but unknown keys: sha257"):
        unseal(b'{"format": 3, "sha257": "00"}', ["format"])


@pytest.mark.parametrize("content", [b"", b"[]", b"3", b"{", b"\xff", b'{"a": 1} {"a": 1}'])
def test_a_file_that_is_not_a_mapping_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        unseal(content, ["a"])
