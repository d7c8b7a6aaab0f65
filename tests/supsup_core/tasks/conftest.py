"""Every registered benchmark, for the tests of all tasks."""

import pytest

from supsup_core.tasks import BENCHMARKS, Benchmark


@pytest.fixture(params=BENCHMARKS.names())
def benchmark(request: pytest.FixtureRequest) -> Benchmark:
    """Every registered benchmark over the digits."""
    return BENCHMARKS[request.param](base="digits", num_tasks=4)
