"""The signals that stop a sweep."""

from __future__ import annotations

import signal

from orchestrator.base.signals import STOP_SIGNALS, heeded, stop_requests


def test_a_signal_that_nohup_ignores_does_not_stop_a_sweep() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert set(heeded()) == set(STOP_SIGNALS) - {signal.SIGHUP}
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        assert set(heeded()) == set(STOP_SIGNALS)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_within_a_block_the_signals_only_make_a_request() -> None:
    for number in STOP_SIGNALS:
        before = signal.getsignal(number)
        with stop_requests() as is_stopping:
            assert not is_stopping()
            signal.raise_signal(number)
            assert is_stopping()
        assert signal.getsignal(number) is before
