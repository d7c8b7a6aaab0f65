"""The allocator: decisions under a budget, on slopes with known outliers."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from supsup_core.errors import InputError
from supsup_core.masks import codec
from supsup_core.nets import Layer
from supsup_core.nns.allocation_tests import ALLOCATION_TESTS
from supsup_core.nns.allocator import Allocator, Budget, Decision

LAYER = Layer("only", (10, 40), 40)


def bits_of(number: int) -> codec.Bits:
    return codec.pack(np.random.default_rng(number).random(400) < 0.5)


def allocator(capacity: int = 10, policy: str = "skip", test: str = "outlier") -> Allocator:
    return Allocator([LAYER], ALLOCATION_TESTS[test](), policy, capacity, bits_of)  # type: ignore[arg-type]


def decide(tried: Allocator, *wins: int | tuple[int, ...] | None) -> list[Decision]:
    """Decides one round. wins: for each stream, the index or indices of the live masks with outlier slopes, or None."""
    k = len(tried.live)
    rows = []
    for stream, win in enumerate(wins):
        drawn = np.random.default_rng(100 * k + stream)
        row = 1 + 0.01 * drawn.standard_normal(k + (len(tried.untrained()) if k else 0))
        for order, place in enumerate(() if win is None else (win,) if isinstance(win, int) else win):
            row[place] += 1 - 0.1 * order
        rows.append(row)
    decisions = tried.decide(np.array(rows))
    for decision in decisions:
        if decision.mask is not None:
            tried.trained(decision.mask, bits_of(1000 + decision.mask))
    tried.end_round()
    return decisions


def outcomes(decisions: list[Decision]) -> list[tuple[str, int | None]]:
    return [(decision.outcome, decision.mask) for decision in decisions]


def test_new_data_gets_a_new_mask_and_known_data_trains_its_old_mask() -> None:
    tried = allocator()
    assert outcomes(decide(tried, None)) == [("allocate", 0)]
    assert outcomes(decide(tried, None)) == [("allocate", 1)]
    assert outcomes(decide(tried, 0)) == [("train", 0)]
    (decision,) = decide(tried, 1)
    assert (decision.best, decision.second, decision.num_masks) == (1, 0, 2)
    assert decision.margin == decision.statistic - decision.threshold > 0


def test_the_superposition_is_the_mean_of_learned_and_untrained_masks() -> None:
    tried = allocator()
    assert tried.superposition() is None
    decide(tried, None)
    decide(tried, None)
    rows = [bits_of(1000), bits_of(1001), *tried.untrained()]
    assert len(rows) == 32
    dense = torch.from_numpy(codec.unpack(np.stack(rows), 400).astype(np.float32))
    found = tried.superposition()
    assert found is not None
    torch.testing.assert_close(found, dense.mean(0))
    vectors = torch.randn(2, 400, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(tried.slopes(vectors), (vectors @ dense.t()).numpy(), rtol=1e-4, atol=1e-4)


def test_a_round_decides_with_the_masks_before_the_round_and_counts_its_allocations() -> None:
    tried = allocator(capacity=3)
    assert outcomes(decide(tried, None, None)) == [("allocate", 0), ("allocate", 1)]
    found = decide(tried, None, 1, None, 1)
    assert outcomes(found) == [("allocate", 2), ("train", 1), ("skip", None), ("train", 1)]
    assert {decision.num_masks for decision in found} == {2}
    assert tried.live == [0, 1, 2]


def test_reuse_trains_the_mask_with_the_largest_slope() -> None:
    tried = allocator(capacity=2, policy="reuse")
    decide(tried, None, None)
    (decision,) = decide(tried, None)
    assert (decision.outcome, decision.mask) == ("reuse", decision.best)


def test_reclaim_frees_the_less_trained_of_two_outliers() -> None:
    tried = allocator(capacity=12, policy="reclaim")
    for _ in range(12):
        decide(tried, None)
    for _ in range(2):
        assert outcomes(decide(tried, (4, 9))) == [("train", 4)]
    (decision,) = decide(tried, None)
    assert (decision.outcome, decision.mask, decision.freed) == ("reclaim", 12, 9)
    assert tried.live[9] == 12
    assert len(tried.live) == 12
    (decision,) = decide(tried, None)
    assert decision.outcome == "reuse"  # no duplicate mask is left
    assert outcomes(decide(tried, 9)) == [("train", 12)]


def test_reclaim_frees_no_mask_that_the_round_trains_and_no_mask_for_known_data() -> None:
    tried = allocator(capacity=12, policy="reclaim")
    for _ in range(12):
        decide(tried, None)
    for _ in range(2):
        decide(tried, (4, 9))
    known, new = decide(tried, 9, None)  # mask 9 is the less trained duplicate, but this round trains it
    assert (known.outcome, known.mask) == ("train", 9)
    assert (new.outcome, new.mask, new.freed) == ("reuse", new.best, None)
    assert tried.live == list(range(12))


def test_reclaim_frees_no_mask_that_a_later_stream_of_the_round_may_choose() -> None:
    tried = allocator(capacity=12, policy="reclaim")
    for _ in range(12):
        decide(tried, None)
    for _ in range(2):
        decide(tried, (4, 9))
    new, known = decide(tried, None, 9)
    assert (new.outcome, new.freed) == ("reuse", None)
    assert (known.outcome, known.mask) == ("train", 9)


@given(
    st.sampled_from(["skip", "reuse", "reclaim"]),
    st.integers(2, 6),
    st.lists(st.lists(st.none() | st.integers(0, 5), min_size=1, max_size=2), max_size=25),
)
def test_the_budget_is_never_exceeded_and_a_replay_of_decisions_gives_the_same_counts(
    policy: str, capacity: int, rounds: list[list[int | None]]
) -> None:
    tried = allocator(capacity, policy)
    made: list[Decision] = []
    for wins in rounds:
        k = len(tried.live)
        made += decide(tried, *(None if win is None or win >= k else win for win in wins))
        assert len(tried.live) <= capacity
        assert len(set(tried.live)) == len(tried.live)
    again = allocator(capacity, policy)
    again.replay([dataclasses.replace(decision) for decision in made])
    again.fill(lambda number: bits_of(1000 + number))
    for name in ("live", "num_allocated", "trained_segments", "together"):
        assert getattr(again, name) == getattr(tried, name)
    first, second = tried.superposition(), again.superposition()
    assert (first is None and second is None) or torch.equal(first, second)  # type: ignore[arg-type]


def test_an_invalid_budget_is_refused() -> None:
    with pytest.raises(InputError):
        Budget(num_masks=0)
