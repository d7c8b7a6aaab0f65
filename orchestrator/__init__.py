"""The platform: plans, runs, resumes and compares sweeps. The package supsup_core holds the methods and networks.

Notebooks can use `orchestrator.load_results(path)` and `orchestrator.plot_accuracy(results)`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.results.notebooks import load_results as load_results
    from orchestrator.results.notebooks import plot_accuracy as plot_accuracy

__all__ = ["load_results", "plot_accuracy"]


def __getattr__(name: str) -> Any:
    """Imports the names in `__all__` only when they are used, so that the command line starts quickly."""
    if name in __all__:
        from orchestrator.results import notebooks

        return getattr(notebooks, name)
    raise AttributeError(f"module 'orchestrator' has no attribute {name!r}")
