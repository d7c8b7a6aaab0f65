"""Inference of the task from images alone."""

from supsup_core.inference import objectives, rules
from supsup_core.inference.objectives import OBJECTIVES
from supsup_core.inference.rules import RULES, RecallingRule, Rule

__all__ = ["OBJECTIVES", "RULES", "RecallingRule", "Rule", "objectives", "rules"]
