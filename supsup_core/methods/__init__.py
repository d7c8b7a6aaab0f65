"""Continual-learning methods."""

from supsup_core.methods import hop_sup_sup, supsup
from supsup_core.methods.base import METHODS, SHARED, Dependence, Learned, Method, Problem, States, Trainee
from supsup_core.methods.baselines import batch_e, bounds, ewc, icarl, piggyback, psp, separate_heads
from supsup_core.methods.learners import Learner

__all__ = [
    "METHODS", "SHARED", "Dependence", "Learned", "Learner", "Method", "Problem", "States", "Trainee",
    "batch_e", "bounds", "ewc", "hop_sup_sup", "icarl", "piggyback", "psp", "separate_heads", "supsup",
]  # fmt: skip
