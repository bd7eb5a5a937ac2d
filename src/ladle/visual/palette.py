"""Colors that color-blind readers can distinguish, the same for a label in every image and chart."""

from __future__ import annotations

import colorsys

__all__ = ["FAINT", "INK", "MUTED", "color", "ink_on"]

INK = "#1a1c20"
"""Text and the most important line."""
MUTED = "#6b7280"
"""Secondary text, ticks, ignored priors."""
FAINT = "#e3e5e9"
"""Grids and frames."""

# Okabe & Ito 2008 without black and yellow, then the darker tones of Paul Tol's "muted" scheme.
_CHOSEN = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
    "#882255",
    "#332288",
    "#999933",
    "#aa4499",
    "#117733",
    "#6699cc",
)
_GOLDEN = 0.61803398875
_LIGHTNESS = (0.36, 0.52, 0.64)


def color(label: int) -> str:
    """The color of a class or an object as ``#rrggbb``; it depends on ``label`` alone.

    The first twelve are chosen for color-blind readers; further ones step through the hues by the golden ratio and
    alternate in lightness.
    """
    if label < len(_CHOSEN):
        return _CHOSEN[label]
    step = label - len(_CHOSEN)
    parts = colorsys.hls_to_rgb((0.12 + step * _GOLDEN) % 1.0, _LIGHTNESS[step % len(_LIGHTNESS)], 0.62)
    return "#" + "".join(f"{round(255 * part):02x}" for part in parts)


def ink_on(background: str) -> str:
    """Black or white, whichever has the higher contrast on ``background`` (WCAG 2)."""
    light = _luminance(background) + 0.05
    return "#ffffff" if 1.05 / light >= light / (_luminance(INK) + 0.05) else INK


def _luminance(shade: str) -> float:
    parts = (int(shade[i : i + 2], 16) / 255 for i in (1, 3, 5))
    red, green, blue = (p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
