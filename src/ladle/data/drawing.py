"""Drawing functions of the built-in scenes: outlines, cluttered backgrounds, textured shapes, and camera effects.

Shapes are polygons in pixels. Images are float32 (size, size, 3) in [0, 1]; :func:`photograph` converts them to bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

__all__ = ["LOOKALIKES", "OUTLINES", "Pixels", "Points", "background", "paint", "photograph", "place"]

Points = NDArray[np.floating[Any]]
Pixels = NDArray[np.floating[Any]]

_SUPERSAMPLE = 3
_STRAY_COLOR = 0.1
"""Standard deviation of the colors of one background and of the two colors of one texture."""


def _arc(start: float, stop: float, points: int) -> Points:
    turn = np.linspace(start, stop, points) * 2 * np.pi
    return np.stack([np.cos(turn), np.sin(turn)], axis=1)


def _crescent() -> Points:
    outer, inner = _arc(0.11, 0.89, 28), _arc(0.83, 0.17, 20)
    scale = abs(outer[0, 1] / inner[0, 1])
    return np.concatenate([outer, inner * scale + [outer[0, 0] - inner[0, 0] * scale, 0]])


def _spiked(spikes: int, waist: float) -> Points:
    radius = np.where(np.arange(2 * spikes) % 2, waist, 1.0)
    return _arc(0.0, 1 - 0.5 / spikes, 2 * spikes) * radius[:, None]


OUTLINES: dict[str, Points] = {
    "disc": _arc(0.0, 1.0, 36),
    "ring": np.concatenate([_arc(0.0, 1.0, 36), _arc(1.0, 0.0, 28) * 0.55]),
    "crescent": _crescent(),
    "square": _arc(0.0, 0.75, 4),
    "triangle": _arc(0.0, 2 / 3, 3),
    "star": _spiked(5, waist=0.45),
}
"""The shapes that are classes, as polygons around the origin."""

LOOKALIKES: tuple[Points, ...] = (
    _arc(0.0, 1.0, 36) * [1, 0.4],  # an ellipse is no disc
    _arc(0.0, 0.5, 24),  # nor is half of one
    np.array([[-1, -0.25], [1, -0.25], [1, 0.25], [-1, 0.25]]),  # a bar is no square
    np.array([[-1, -1], [-0.4, -1], [-0.4, 0.4], [1, 0.4], [1, 1], [-1, 1]]),  # an L is no triangle
    _spiked(4, waist=0.3),  # a star has five points
)
"""The shapes that belong to no class."""


def place(outline: Points, side: float, center: Points, random: Generator) -> Points:
    """Rotate and squeeze an outline, then scale it to the longer side ``side`` and center it at ``center``."""
    turn, squeeze = random.uniform(0, 2 * np.pi), random.uniform(0.75, 1.0)
    cos, sin = np.cos(turn), np.sin(turn)
    points = outline @ np.array([[cos, sin], [-sin * squeeze, cos * squeeze]])
    low, high = points.min(0), points.max(0)
    placed: Points = (points - (low + high) / 2) * (side / (high - low).max()) + center
    return placed


def background(random: Generator, size: int, clutter: int) -> Pixels:
    """Soft color fields under up to ``clutter`` strokes, blobs and slabs."""
    base = random.uniform(0.15, 0.85) + random.normal(0, 0.12, 3)
    fields = (base + random.normal(0, _STRAY_COLOR, (3, 4, 3))).clip(0, 1)
    image = Image.fromarray((fields * 255).astype(np.uint8)).resize((2 * size, 2 * size), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(image, "RGBA")
    for _ in range(int(random.integers(0, clutter + 1))):
        _scribble(pen, random, 2 * size, base)
    canvas = np.asarray(image.reduce(2), np.float32) / 255
    grain = Image.fromarray(random.integers(0, 256, (size // 4, size // 4), np.uint8)).resize((size, size))
    strength = np.float32(random.uniform(0, 0.16))
    return canvas + (np.asarray(grain, np.float32)[..., None] / 255 - 0.5) * strength


def _scribble(pen: ImageDraw.ImageDraw, random: Generator, size: int, base: Points) -> None:
    """Draw one transparent stroke, flat ellipse or rectangle in a color near ``base``."""
    color = ((base + random.normal(0, 0.2, 3)).clip(0, 1) * 255).astype(int)
    ink = (*color.tolist(), int(random.integers(60, 200)))
    start = random.uniform(-0.1, 1.1, 2) * size
    reach = random.normal(0, 0.3, 2) * size
    kind = random.integers(3)
    if kind == 0:
        pen.line([*start, *(start + 2 * reach)], fill=ink, width=int(random.integers(1, 7)))
    elif kind == 1:
        half = abs(reach) / 2
        half[1] = half[0] * random.uniform(0.1, 0.45)  # flat: a round blob would be a disc without a label
        pen.ellipse([*(start - half), *(start + half)], fill=ink)
    else:
        across = np.array([-reach[1], reach[0]]) * random.uniform(0.1, 0.45)
        corners = np.stack([start, start + reach, start + reach + across, start + across])
        pen.polygon(corners.ravel().tolist(), fill=ink)


def paint(
    behind: Pixels,
    shapes: Sequence[Points],
    random: Generator,
    contrast: tuple[float, float],
    texture_rate: float,
    hidden: float,
) -> tuple[Pixels, list[int]]:
    """Draw shapes over a background, the foremost first; return the image and the indices of the shapes drawn.

    A shape is left out if more than the share ``hidden`` of it is behind others or outside the image.
    """
    canvas = np.zeros_like(behind)
    free = np.ones((*behind.shape[:2], 1), np.float32)  # how much of each pixel nothing covers yet
    drawn = []
    for index, points in enumerate(shapes):
        mask, window, whole = _mask(points, len(behind))
        share = mask * free[window]
        if share.sum() < (1 - hidden) * whole:
            continue
        color = _apart(behind[window].mean((0, 1)), random.uniform(*contrast), random)
        canvas[window] += share * _texture(mask.shape[0], mask.shape[1], color, random, texture_rate)
        free[window] -= share
        drawn.append(index)
    return canvas + free * behind, drawn


def _mask(points: Points, size: int) -> tuple[Pixels, tuple[slice, slice], float]:
    """The antialiased coverage (h, w, 1) of a polygon inside the image, its window, and its whole area."""
    low, high = np.floor(points.min(0)).astype(int), np.ceil(points.max(0)).astype(int)
    width, height = ((high - low) * _SUPERSAMPLE).tolist()
    canvas = Image.new("L", (width, height))
    # PIL puts a pixel's center at whole numbers.
    ImageDraw.Draw(canvas).polygon(((points - low) * _SUPERSAMPLE - 0.5).ravel().tolist(), fill=255)
    cover = np.asarray(canvas.reduce(_SUPERSAMPLE), np.float32)[..., None] / 255
    start, stop = np.maximum(low, 0), np.minimum(high, size)
    (left, top), (right, bottom) = start.tolist(), stop.tolist()
    inside = cover[top - low[1] : bottom - low[1], left - low[0] : right - low[0]]
    return inside, (slice(top, bottom), slice(left, right)), float(cover.sum())


def _apart(behind: Pixels, contrast: float, random: Generator) -> Pixels:
    """A color at the distance ``contrast`` (root mean square over RGB) from ``behind``, clipped to [0, 1]."""
    direction = random.normal(0, 1, 3) + random.normal(0, 0.7)
    step = direction / np.sqrt((direction**2).mean()) * contrast
    towards, away = behind + step, behind - step
    lost = [abs(color.clip(0, 1) - color).sum() for color in (towards, away)]
    chosen: Pixels = (towards if lost[0] <= lost[1] else away).clip(0, 1).astype(np.float32)
    return chosen


def _texture(height: int, width: int, first: Pixels, random: Generator, rate: float) -> Pixels:
    """``first`` mixed with a color near it: a ramp, or with probability ``rate`` stripes or checks."""
    second = first + random.normal(0, _STRAY_COLOR, 3)
    turn, period = random.uniform(0, 2 * np.pi), random.uniform(3, 12)
    x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
    along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    wave = 2 * np.pi / period
    if random.random() >= rate:
        mix = along / max(height, width) * 0.5 + 0.25
    elif random.random() < 0.5:
        mix = np.sin(along * wave) * 2 + 0.5
    else:
        mix = np.sin(along * wave) * np.sin(across * wave) * 3 + 0.5
    mixed: Pixels = (first + mix.clip(0, 1)[..., None] * (second - first)).astype(np.float32)
    return mixed


def photograph(canvas: Pixels, random: Generator, noise: float, blur_rate: float) -> NDArray[np.uint8]:
    """Add uneven light, sensor noise up to ``noise`` and sometimes blur; returns uint8 (3, size, size)."""
    size = len(canvas)
    ramp = np.linspace(-1, 1, size, dtype=np.float32)
    tilt = random.uniform(-0.22, 0.22, 2).astype(np.float32)
    light = random.uniform(0.75, 1.15) * (1 + tilt[0] * ramp[:, None] + tilt[1] * ramp)
    lit = canvas * (light[..., None] * random.uniform(0.93, 1.07, 3)).astype(np.float32)
    speckle = random.integers(0, 256, lit.shape, np.uint8).astype(np.float32) / 255 - 0.5
    lit += speckle * np.float32(2 * random.uniform(0, noise))
    image = Image.fromarray((lit.clip(0, 1) * 255).astype(np.uint8))
    if random.random() < blur_rate:
        image = image.filter(ImageFilter.GaussianBlur(random.uniform(0.4, 1.3) * size / 160))
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))
