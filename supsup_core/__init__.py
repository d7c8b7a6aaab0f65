"""SupSup, supermasks in superposition: the science, free of any platform."""

RECIPE_VERSION = 7
"""Part of every artifact's key. A change that alters the bits of a trained mask, or of what is stored with it, must
raise it."""
