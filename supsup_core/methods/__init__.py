"""Continual-learning methods."""

from supsup_core.methods import batch_e, bounds, ewc, hop_sup_sup, icarl, piggyback, psp, separate_heads, supsup
from supsup_core.methods.base import METHODS, SHARED, Dependence, Learned, Learner, Method, Problem, States, Trainee

__all__ = [
    "METHODS", "SHARED", "Dependence", "Learned", "Learner", "Method", "Problem", "States", "Trainee",
    "batch_e", "bounds", "ewc", "hop_sup_sup", "icarl", "piggyback", "psp", "separate_heads", "supsup",
]  # fmt: skip
