"""Whoever sees colours otherwise, or none, can read a page: contrasts and distances in numbers, and a second mark beside each colour."""

from __future__ import annotations

import re
from itertools import combinations

import numpy as np
import pytest

from fedsim.records.rows import OUTCOMES
from fedsim.report import drawn, style
from fedsim.report.style import DARK, ENDINGS, GREY, INK, PAPER, PATTERNS, RUN_COLOURS, SYMBOLS, words_on

LIGHT_PAGE, DARK_PAGE = "#FFFFFF", DARK[PAPER]
# Machado, Oliveira and Fernandes 2009, "A Physiologically-based Model for Simulation of Color Vision Deficiency", table 1, severity 1
SIGHTS = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])  # sRGB, D65


def linear(colour):
    parts = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def contrast(one, other):
    """WCAG 2.2, of the luminance that is the second row of sRGB to XYZ."""
    low, high = sorted(float(TO_XYZ[1] @ linear(colour)) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


def distance(one, other, sight):
    """CIE76 between two colours as somebody sees them."""

    def lab(colour):
        xyz = TO_XYZ @ np.clip(SIGHTS[sight] @ linear(colour), 0, 1) / (TO_XYZ @ np.ones(3))
        x, y, z = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
        return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])

    return float(np.linalg.norm(lab(one) - lab(other)))


def test_black_on_white_is_21_and_100_apart():
    assert style.contrast("#000000", "#FFFFFF") == pytest.approx(contrast("#000000", "#FFFFFF")) == 21
    assert distance("#000000", "#FFFFFF", "deuteranopia") == pytest.approx(100, abs=0.1)


@pytest.mark.parametrize("page", [LIGHT_PAGE, DARK_PAGE])
def test_what_is_drawn_stands_out_from_the_page(page):
    colours = {*RUN_COLOURS, GREY, *(colour for _, colour in ENDINGS.values())}
    shown = {DARK.get(colour, colour) if page == DARK_PAGE else colour for colour in colours}

    assert {c: contrast(c, page) for c in shown if contrast(c, page) < 2.9} == {}
    assert contrast(INK if page == LIGHT_PAGE else DARK[INK], page) > 7


@pytest.mark.parametrize("sight", SIGHTS)
@pytest.mark.parametrize("page", [LIGHT_PAGE, DARK_PAGE])
def test_runs_are_told_apart_by_anybody(sight, page):
    colours = [DARK.get(colour, colour) if page == DARK_PAGE else colour for colour in RUN_COLOURS]

    assert min(distance(a, b, sight) for a, b in combinations(colours, 2)) >= 14.5
    assert len(set(SYMBOLS)) == len(SYMBOLS) > len(RUN_COLOURS)  # and by their marks


def test_endings_are_told_apart_by_hatching_where_colours_are_alike():
    assert set(PATTERNS) <= set(ENDINGS)
    assert set(OUTCOMES) <= set(ENDINGS)
    together = set(ENDINGS) - {"landed"}  # `committed` and `landed` are never in one figure
    for one, other in combinations(sorted(together), 2):
        alike = min(distance(ENDINGS[one][1], ENDINGS[other][1], sight) for sight in SIGHTS) < 10
        assert not (alike and PATTERNS.get(one) == PATTERNS.get(other)), (one, other)


def test_words_on_bars_can_be_read():
    for _, colour in ENDINGS.values():
        assert contrast(words_on(colour), colour) >= 4.5, colour


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_of_the_page_can_be_read(scheme):
    light, dark = re.findall(r":root \{([^}]*)\}", drawn.STYLE)
    names = dict(re.findall(r"--(\w+): (#\w+)", light if scheme == "light" else dark))
    page = names["page"] if len(names["page"]) == 7 else "#FFFFFF"

    assert page.upper() == (LIGHT_PAGE if scheme == "light" else DARK_PAGE)
    for ground in (page, names["wash"], names["note"], names["alert"]):
        for word in ("ink", "soft", "accent"):
            assert contrast(names[word], ground) >= 4.5, (word, ground)
