"""The platform: plans, runs, resumes and compares sweeps of the science in supsup_core.

For notebooks: `orchestrator.load_results(path)` and `orchestrator.plot_accuracy(results)`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.results.notebooks import load_results as load_results
    from orchestrator.results.notebooks import plot_accuracy as plot_accuracy

__all__ = ["load_results", "plot_accuracy"]


def __getattr__(name: str) -> Any:
    """Imported when first asked for, so that the command line stays quick."""
    if name in __all__:
        from orchestrator.results import notebooks

        return getattr(notebooks, name)
    raise AttributeError(f"module 'orchestrator' has no attribute {name!r}")
