"""Makes the figures of a report independent of the user's Matplotlib settings. Importing this module is fast."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

_FURTHER_FONTS = frozenset({"Noto Sans CJK JP", "Noto Sans CJK SC", "WenQuanYi Zen Hei", "Droid Sans Fallback"})
"""Fonts with characters that Matplotlib's own font lacks. Figures use a font of this list only if the font is
installed."""


def use_own_settings() -> None:
    """Makes Matplotlib, which must not be loaded yet, ignore the user's backend and settings file in this process."""
    os.environ["MPLBACKEND"] = "agg"
    os.environ["MATPLOTLIBRC"] = str(Path(__file__).with_name("matplotlibrc"))
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # Matplotlib warns of settings that do not matter here


@contextlib.contextmanager
def default_style() -> Iterator[None]:
    """Within the `with` block, Matplotlib draws with its default settings instead of the user's settings."""
    import matplotlib.style
    from matplotlib import font_manager

    fonts = ["DejaVu Sans", *sorted({*font_manager.get_font_names()} & _FURTHER_FONTS)]
    with matplotlib.style.context(["default", {"font.family": fonts}]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing", UserWarning)
        yield
