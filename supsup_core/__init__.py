"""SupSup, supermasks in superposition: the science, free of any platform."""

RECIPE_VERSION = 6
"""Part of every artifact's key. A change that alters the bits of a trained mask must raise it."""
