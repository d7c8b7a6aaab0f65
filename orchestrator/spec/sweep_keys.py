"""Lists the keys of a sweep file by their meaning. This module does not import torch, so importing it is fast."""

from __future__ import annotations

MOST_RUNS = 10_000
"""The largest number of runs of a sweep."""

NNS_KEYS = ("stream", "allocation", "budget")
"""Keys of the experiment that are used in scenario NNs only, in which no task identity is given in training."""

COMPONENTS = ("benchmark", "net", "method", "allocation")
"""Keys whose value contains the `name` of a registered class. A grid or variant that changes one of these
keys replaces the whole value, because another class has other fields."""

EXPERIMENT_KEYS = ("scenario", "benchmark", "net", "method", "training", "inference", "evaluation", *NNS_KEYS)
"""Keys of a sweep file that define what is computed. The other keys define repetitions, resources and outputs."""

REPETITION_KEYS = ("variants", "only", "grid", "seeds", "imports")
"""Keys of a sweep file that define which experiments run. These keys and EXPERIMENT_KEYS together determine a sweep's
id."""
