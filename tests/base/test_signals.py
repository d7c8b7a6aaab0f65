"""The signals that stop a sweep."""

from __future__ import annotations

import signal

from orchestrator.base.signals import STOP_SIGNALS, heeded


def test_a_signal_that_nohup_ignores_does_not_stop_a_sweep() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert set(heeded()) == set(STOP_SIGNALS) - {signal.SIGHUP}
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        assert set(heeded()) == set(STOP_SIGNALS)
    finally:
        signal.signal(signal.SIGHUP, before)
