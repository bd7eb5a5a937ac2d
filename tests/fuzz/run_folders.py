"""Damage the files of finished runs at random and resume them: each time one sentence, or a run that is whole again.

Not collected by pytest: ``python -m tests.fuzz.run_folders FOLDER --trials 200``. Every trial is a process of its own,
with a limit of time and of memory. ``--seed`` chooses other damage.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import torch
import yaml

from ladle.recipes import distill, train, training
from tests.fuzz.forked import judge, run_forked
from tests.recipes.tiny import RUN, make_data

ODD = [
    *(None, True, -1, 0, 10**9, 10**30, 0.5, float("nan"), float("inf"), "", "x", "x" * 5000, "\ud800", "-1", [], [1]),
    *({}, {"a": 1}, [[]], "../..", "\0", "nan", [None] * 1000),
]
"""What takes the place of a value."""


def mutate_bytes(content: bytes, dice: random.Random) -> bytes:
    """The content with some bytes changed, cut out, doubled or added."""
    at, upto = sorted(dice.randrange(len(content) + 1) for _ in range(2))
    changed = bytearray(content)
    kind = dice.randrange(7)
    if kind == 0:
        return content[:at]
    if kind == 1:
        return content[:at] + content[min(upto, at + dice.choice((1, 10, 1000))) :]
    if kind == 2:
        return content[:at] + dice.randbytes(dice.choice((1, 8, 500))) + content[at:]
    if kind == 3:
        return content[:at] + content[at : at + 200] * 2 + content[at + 200 :]
    if kind == 4:
        return b"\0" * len(content)
    for _ in range(dice.choice((1, 1, 3, 30))):
        changed[dice.randrange(len(changed))] = dice.randrange(256)
    return bytes(changed)


def mutate_value(value: object, dice: random.Random) -> object:
    """The value with something in it replaced, removed, renamed or repeated, at a depth that is drawn."""
    if isinstance(value, dict) and value and dice.random() < 0.9:
        key = dice.choice(list(value))
        kind = dice.random()
        if kind < 0.1:
            return {name: one for name, one in value.items() if name != key}
        if kind < 0.2:
            return value | {dice.choice(["odd", 7, None]): value[key]}
        return value | {key: mutate_value(value[key], dice)}
    if isinstance(value, list | tuple) and value and dice.random() < 0.9:
        at = dice.randrange(len(value))
        if dice.random() < 0.2:
            return type(value)((*value[:at], *value[at + 1 :]))
        return type(value)((*value[:at], mutate_value(value[at], dice), *value[at + 1 :]))
    if isinstance(value, torch.Tensor) and dice.random() < 0.8:
        odd = [value[..., None], value.double(), value.flatten()[:1], value.to(torch.complex64), torch.zeros(0)]
        return dice.choice([*odd, value.to_sparse(), value.long(), torch.zeros(1).expand(10**6)])
    return dice.choice(ODD)


def damage(file: Path, dice: random.Random) -> str:
    """Damage one file of a run and say how."""
    kind = dice.random()
    if kind < 0.05:
        file.unlink()
        return "removed"
    if kind < 0.1:
        file.unlink()
        dice.choice([Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/dev/zero"), Path.touch])(file)
        return "something else"
    if file.suffix in (".yaml", ".json", ".pt") and kind < 0.7:
        if file.suffix == ".pt":
            torch.save(mutate_value(torch.load(file, weights_only=True), dice), file)
        else:
            told = mutate_value(yaml.safe_load(file.read_text()), dice)
            dump = yaml.safe_dump if file.suffix == ".yaml" else json.dumps
            file.write_text(dump(told), errors="surrogatepass")
        return "another value"
    file.write_bytes(mutate_bytes(file.read_bytes(), dice))
    return "other bytes"


def trial(verb: str, folder: Path) -> tuple[str, str]:
    """What becomes of a resume, ``whole``, ``refused`` or what is wrong, and the words."""
    training.draw_history = lambda *_: None  # what is drawn takes most of the time
    training.Evaluator.draw = lambda *_: None
    ended = run_forked([verb, "--resume", str(folder), "--epochs", "3"])
    return judge(ended).replace("accepted", "whole"), ended.said


def campaign(place: Path, trials: int, seed: int) -> Counter[tuple[str, str, str]]:
    """Count what becomes of so many trials, by the file and by the kind of damage."""
    torch.set_num_threads(1)
    data = make_data(place / "data")
    whole = {"train": train(data, "paa-tiny", replace(RUN, epochs=2, name="a", project=str(place))).folder}
    teacher = str(whole["train"] / "weights" / "last.safetensors")
    run = replace(RUN, epochs=2, name="a", project=str(place), optimizer="sgd", ema=0.9)
    whole["distill"] = distill(data, "paa-tiny", teacher, "soft", run, allow_weak_teacher=True).folder
    seen: Counter[tuple[str, str, str]] = Counter()
    for number in range(trials):
        dice = random.Random(f"{seed}/{number}")
        verb = dice.choice(list(whole))
        folder = place / "trial"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole[verb], folder)
        files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.suffix not in ("", ".png"))
        file = dice.choice([*files, Path("config.yaml"), Path("resume.pt"), Path("resume.pt")])
        how = damage(folder / file, dice)
        what, words = trial(verb, folder)
        seen[what, str(file), how] += 1
        if what not in ("refused", "whole"):
            print(f"{number}: {verb} {file}, {how}: {what}\n{words[-1500:]}", flush=True)
    return seen


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    found = campaign(given.folder, given.trials, given.seed)
    for (what, file, how), count in sorted(found.items()):
        print(f"{count:5} {what:12} {file:30} {how}")
    bad = sum(count for (what, _, _), count in found.items() if what not in ("refused", "whole"))
    print(f"{found.total()} trials, {bad} neither told in a sentence nor whole again")
    sys.exit(bad > 0)
