"""SupSup (supermasks in superposition): models, training, inference and evaluation, without any platform code."""

RECIPE_VERSION = 7
"""Part of the content key of every artifact. Raise this number whenever a change of the code alters the stored bits of
a trained task."""
