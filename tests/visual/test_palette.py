from __future__ import annotations

import re

import numpy as np
import pytest

from ladle.visual.palette import color, ink_on

# Machado, Oliveira & Fernandes 2009, severity 1.0, on linear RGB.
BLIND = {
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
}


def linear(shade: str) -> np.ndarray:
    parts = np.array([int(shade[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.cbrt((to_xyz @ np.clip(rgb, 0, 1)) / [0.9505, 1.0, 1.089])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("blindness", BLIND)
def test_the_first_eight_colors_stay_apart_for_color_blind_readers(blindness: str) -> None:
    seen = [lab(np.array(BLIND[blindness]) @ linear(color(i))) for i in range(8)]
    apart = [np.linalg.norm(seen[i] - seen[j]) for i in range(8) for j in range(i)]
    assert min(apart) > 10  # CIE 1976: a difference of 2.3 is just noticeable


def test_forty_objects_have_forty_colors() -> None:
    shades = [color(i) for i in range(40)]
    assert len(set(shades)) == 40
    assert all(re.fullmatch("#[0-9a-f]{6}", shade) for shade in shades)


def test_ink_can_be_read_on_every_color() -> None:
    def luminance(shade: str) -> float:
        return float(linear(shade) @ [0.2126, 0.7152, 0.0722])

    for shade in map(color, range(80)):
        dark, light = sorted((luminance(shade), luminance(ink_on(shade))))
        assert (light + 0.05) / (dark + 0.05) >= 4.0


def test_ink_is_white_on_dark_and_dark_on_light() -> None:
    assert ink_on("#000000") == "#ffffff"
    assert ink_on("#ffffff") != "#ffffff"
