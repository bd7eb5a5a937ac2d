"""The model card of a run: what the detector is, how good it is and how it was made, as model hubs show it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from ladle.evaluation import AP_FIELDS
from ladle.files import write_text
from ladle.names import on_one_line, readable
from ladle.recipes.progress import best_weights
from ladle.recipes.report_runs import Entry, command_of
from ladle.recipes.report_values import Scored
from ladle.recipes.report_words import about_threshold, comparison, headline, not_comparable
from ladle.visual.markdown import block, literal, table

__all__ = ["CARD", "card_of", "write_card"]

CARD = "card.md"
"""The model card in the folder of a run."""
_MOST_CLASSES = 1000


def write_card(entries: Sequence[Entry], base: Entry | None, folder: Path) -> Path:
    """Write the card of the students of one run into a folder, beside a baseline if there is one."""
    path = folder / CARD
    write_text(path, card_of(entries, base), only_changes=True)
    return path


def card_of(entries: Sequence[Entry], base: Entry | None = None, repository: str | None = None) -> str:
    """The card of the students of one run, in Markdown, with the metadata of model hubs at its beginning.

    With a ``base``, such as a run without a teacher, its AP stands beside that of the students. With a ``repository``
    of a hub the program on the card opens the weights there.
    """
    run = entries[0].run
    parts = [
        f"---\n{yaml.safe_dump(_metadata(entries), sort_keys=False, allow_unicode=True)}---",
        f"# {literal(_title(entries))}",
        *(part for entry in entries for part in _result(entry, base, named=len(entries) > 1)),
        "## Use",
        f"With Ladle {version('ladle')}, which draws the detections and writes them as COCO results:",
        block(_use(entries, repository), "python"),
        *_classes(entries[0].scored),
        "## Training",
        table(_training(entries[0])),
    ]
    command = command_of(run.job)
    parts.append(block(command) if command else "Objects were given in Python, so that no command repeats the run.")
    return "\n\n".join(parts) + "\n"


def _title(entries: Sequence[Entry]) -> str:
    models = " and ".join(entry.scored.model if entry.scored else entry.student for entry in entries)
    return f"{models}, {_how(entries[0])}"


def _how(entry: Entry) -> str:
    job = entry.run.job
    return {"train": "trained", "distill": f"distilled with {job.method}", "colearn": "trained together"}[job.verb]


def _metadata(entries: Sequence[Entry]) -> dict[str, Any]:
    """The fields that hubs read: the library, the task, and AP as a fraction."""
    tags = ["object-detection", "ladle"]
    tags += ["knowledge-distillation"] if entries[0].run.job.verb != "train" else []
    return {
        "library_name": "ladle",
        "pipeline_tag": "object-detection",
        "tags": tags,
        "model-index": [
            {"name": on_one_line(_title([entry])), "results": [_measured(entry, entry.scored)]}
            for entry in entries
            if entry.scored is not None
        ],
    }


def _measured(entry: Entry, one: Scored) -> dict[str, Any]:
    data = on_one_line(Path(entry.run.job.data).name)
    metrics = [
        {"type": field, "name": name, "value": round(float(value), 4)}
        for name, field in AP_FIELDS.items()
        if (value := one.metrics.get(field)) is not None
    ]
    return {
        "task": {"type": "object-detection"},
        "dataset": {"name": data, "type": data, "split": "validation"},
        "metrics": metrics,
    }


def _result(entry: Entry, base: Entry | None, named: bool) -> list[str]:
    one = entry.scored
    parts = [f"## {literal(entry.title)}"] if named else []
    warning = not_comparable(entry, base) if base is not None else None
    compared = base if warning is None else None
    parts += [literal(text) for text in (warning, headline(entry, compared)) if text is not None]
    if one is None:
        return parts
    rows = [shown for shown in (compared, entry) if shown is not None and shown.scored is not None]
    parts.append(table([_aps(row) for row in rows]))
    parts += [literal(line) for line in comparison(entry, compared)] if compared is not None else []
    size = f"{one.parameters / 1e6:.2f} million parameters, {one.flops / 1e9:.2f} billion operations for an image"
    return [*parts, literal(about_threshold(one).split(". ")[0] + "."), f"{size} of {one.imgsz} pixels."]


def _aps(entry: Entry) -> dict[str, object]:
    assert entry.scored is not None
    values = {name: entry.scored.metrics.get(field) for name, field in AP_FIELDS.items()}
    how = f"{entry.scored.model}, {_how(entry)}"
    return {"detector": how} | {name: None if value is None else 100 * value for name, value in values.items()}


def _use(entries: Sequence[Entry], repository: str | None) -> str:
    """A program that finds objects with the best weights of the run."""
    if repository is not None:
        return f'from ladle import from_hub, predict\n\npredict("IMAGES", from_hub({json.dumps(repository)}))'
    files = [best_weights(entry.run.job, entry.student).name for entry in entries]
    return "\n".join(["from ladle import predict", "", *(f'predict("IMAGES", "weights/{file}")' for file in files)])


def _classes(one: Scored | None) -> list[str]:
    if one is None:
        return []
    names = readable([row.name for row in one.classes])
    more = [f"and {len(names) - _MOST_CLASSES} more"] if len(names) > _MOST_CLASSES else []
    return [f"## Classes ({len(names)})", ", ".join(map(literal, [*names[:_MOST_CLASSES], *more]))]


def _training(entry: Entry) -> list[dict[str, object]]:
    """What decides the weights, as rows of a name and a value."""
    job = entry.run.job
    told: dict[str, object] = {"data": Path(job.data).name}
    if job.contents is not None:
        told["images"] = f"{job.contents[0].images} to train on, {job.contents[1].images} to validate"
    if job.teacher is not None:
        told["teacher"] = Path(job.teacher).name
    if job.teacher_sha256 is not None:
        told["SHA-256 of the teacher"] = job.teacher_sha256
    told |= {"epochs": job.run.epochs, "seed": job.run.seed, "Ladle": version("ladle")}
    return [{"setting": name, "value": str(value)} for name, value in told.items()]
