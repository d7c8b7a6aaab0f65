"""A fixture with every registered benchmark."""

import pytest

from supsup_core.tasks import BENCHMARKS, Benchmark


@pytest.fixture(params=BENCHMARKS.names())
def benchmark(request: pytest.FixtureRequest) -> Benchmark:
    """Every registered benchmark, with the digits as its dataset."""
    return BENCHMARKS[request.param](base="digits", num_tasks=4)
