"""Fixtures with every registered net and the shape of its images."""

import pytest

from supsup_core.errors import InputError
from supsup_core.nets import NETS, Net


@pytest.fixture(params=NETS.names())
def net(request: pytest.FixtureRequest) -> Net:
    """Every registered net, with superfluous outputs."""
    return NETS[request.param](num_outputs=15)


@pytest.fixture
def shape(net: Net) -> tuple[int, ...]:
    """The shape of small images for the net."""
    try:
        net.layers((36,))
    except InputError:
        return (3, 32, 32)
    return (36,)
