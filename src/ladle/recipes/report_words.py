"""The sentences of a report: what came out, and what it suggests."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ladle.recipes.report_runs import Entry
from ladle.recipes.report_values import Scored
from ladle.statistics import share

__all__ = ["about_errors", "about_threshold", "comparison", "difference", "headline", "not_comparable"]

_SAME = 0.05
"""A smaller difference in percent is shown as 0.0."""
_NAMED = 3
"""Classes that are named in a sentence."""
_MEANING = {
    "classification": "detections in the right place of the wrong class: the confusion matrix names the pairs",
    "localization": "detections of the right class too far from their object: a higher weight of the box loss or more "
    "epochs may help",
    "both": "detections of the wrong class too far from an object",
    "duplicate": "further detections of an object that is found: suppression leaves them",
    "background": "detections where no object is labeled: look in the images below whether labels are missing",
    "missed": "objects that no detection comes near: see below which of them get no positive; larger images or more "
    "epochs may help",
}


def headline(entry: Entry, base: Entry | None) -> str:
    """The result in one sentence, with the difference from the baseline if there is one."""
    one = entry.scored
    if one is None:
        best = max((value for _, value in entry.aps), default=None)
        found = f"the best AP of its results.csv is {100 * best:.1f}" if best is not None else "it holds no AP"
        return f"{entry.title} has no stored evaluation; {found}."
    ap = _ap(one, "ap")
    found = f"{_percent(ap)} AP ({_percent(_ap(one, 'ap50'))} AP50) on {one.images} images"
    if base is None or base.scored is None or ap is None:
        return f"{one.model} reaches {found}, at epoch {one.epoch} of {entry.run.job.run.epochs}."
    before = _ap(base.scored, "ap")
    if before is None:
        return f"{entry.title} reaches {found}; {base.title} has no AP."
    helped = entry.run.job.verb == "distill" and base.run.job.verb == "train"
    words = ("Distillation helped", "Distillation did not help", "Distillation changed nothing") if helped else None
    better, worse, same = words or (f"{entry.title} is better", f"{entry.title} is worse", f"{entry.title} is the same")
    gain = ap - before
    verdict = same if abs(gain) < _SAME else better if gain > 0 else worse
    return f"{verdict}: {found}, {_gain(gain)} from {before:.1f} of {base.title}."


def comparison(entry: Entry, base: Entry) -> list[str]:
    """For which classes and sizes the AP has changed, and how far that can be relied on."""
    one, other = entry.scored, base.scored
    if one is None or other is None:
        return []
    before = {row.name: row.ap for row in other.classes}
    gains = {
        row.name: 100 * (row.ap - old)
        for row in one.classes
        if row.ap is not None and (old := before.get(row.name)) is not None
    }
    lines = [_by_size(one, other)] if any(_ap(one, f"ap_{size}") is not None for size in one.by_size) else []
    if gains:
        up = sorted((name for name, gain in gains.items() if gain >= _SAME), key=lambda name: -gains[name])
        down = sorted((name for name, gain in gains.items() if gain <= -_SAME), key=lambda name: gains[name])
        lines.append(
            f"Of {len(gains)} classes {len(up)} gain{_listed(up, gains)} and {len(down)} lose{_listed(down, gains)}."
        )
    lines.append(
        "Each number is that of one run. Another --seed alone changes AP, so train both with two more seeds before you "
        "rely on a small difference."
    )
    return lines


def not_comparable(entry: Entry, base: Entry) -> str | None:
    """A sentence if two runs were evaluated on other images or with other limits, or None."""
    one, other = entry.run.job.contents, base.run.job.contents
    if one is not None and other is not None and one[1] != other[1]:
        return f"{entry.title} and {base.title} were evaluated on different images: their AP cannot be compared."
    if entry.scored and base.scored and entry.scored.most != base.scored.most:
        return (
            f"{entry.title} counts up to {entry.scored.most} detections of an image and {base.title} up to "
            f"{base.scored.most}: their AP cannot be compared."
        )
    return None


def difference(now: float | None, before: float | None) -> float:
    """How far an AP in percent is from another; 0.0 for those that are the same, NaN if one is missing."""
    return math.nan if now is None or before is None else _unless_same(now - before)


def about_threshold(one: Scored) -> str:
    """The threshold that maximizes F1, and what it gives."""
    return (
        f"F1 is largest, {100 * one.f1:.1f} %, for detections with a score of at least {one.threshold:.3f}: precision "
        f"{100 * one.precision:.1f} %, recall {100 * one.recall:.1f} %, at an IoU of 0.5. Confusion, errors and images "
        "below are those at this threshold."
    )


def about_errors(one: Scored) -> list[str]:
    """The kinds of errors from the most frequent on, each with what it means."""
    totals = {kind: sum(row.kinds.get(kind, 0) for row in one.classes) for kind in _MEANING}
    whole = sum(totals.values())
    ranked = sorted((kind for kind in totals if totals[kind]), key=lambda kind: -totals[kind])
    return [
        f"{kind}: {totals[kind]} ({share(totals[kind], whole):.0f} % of all errors), {_MEANING[kind]}"
        for kind in ranked
    ]


def _by_size(one: Scored, other: Scored) -> str:
    parts = []
    for size in one.by_size:
        now, before = _ap(one, f"ap_{size}"), _ap(other, f"ap_{size}")
        if now is not None and before is not None:
            parts.append(f"{size} {_signed(now - before)}")
    return f"AP by size of objects: {', '.join(parts)}."


def _listed(names: Sequence[str], gains: dict[str, float]) -> str:
    if not names:
        return ""
    shown = ", ".join(f"{name} {_signed(gains[name])}" for name in names[:_NAMED])
    return f" ({'most: ' if len(names) > _NAMED else ''}{shown})"


def _ap(one: Scored, name: str) -> float | None:
    """A metric in percent."""
    value = one.metrics.get(name)
    return None if value is None or not math.isfinite(value) else 100 * value


def _percent(value: float | None) -> str:
    return "no" if value is None else f"{value:.1f}"


def _signed(value: float) -> str:
    return f"{_unless_same(value):+.1f}"


def _unless_same(value: float) -> float:
    """A difference in percent; 0.0 for a small one, which would be printed as -0.0 if it is negative."""
    return 0.0 if abs(value) < _SAME else value


def _gain(value: float) -> str:
    return "0.0 away" if abs(value) < _SAME else f"{abs(value):.1f} {'up' if value > 0 else 'down'}"
