"""Inferring the task from the images alone."""

from supsup_core.inference import allocation, objectives, rules
from supsup_core.inference.allocation import ALLOCATION_TESTS, AllocationTest
from supsup_core.inference.objectives import OBJECTIVES
from supsup_core.inference.rules import RULES, Rule

__all__ = ["ALLOCATION_TESTS", "OBJECTIVES", "RULES", "AllocationTest", "Rule", "allocation", "objectives", "rules"]
