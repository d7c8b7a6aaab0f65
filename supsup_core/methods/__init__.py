"""Continual-learning methods."""

from supsup_core.methods import supsup
from supsup_core.methods.base import METHODS, Dependence, Learned, Learner, Method, Problem, Trainee

__all__ = ["METHODS", "Dependence", "Learned", "Learner", "Method", "Problem", "Trainee", "supsup"]
