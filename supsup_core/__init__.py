"""SupSup (supermasks in superposition): models, training, inference and evaluation, without any platform code."""

RECIPE_VERSION = 7
"""Part of the content key of every artifact. Raise it with any change that alters the stored bits of a trained task."""
