"""Results as lines of JSON, with setting, code and machine; and tables of them."""

import hashlib
import json
import math
import os
import statistics
import subprocess
from pathlib import Path

import torch
from scipy import stats

from ladle.evaluation import AP_FIELDS
from ladle.exporting import processor

TORCHVISION = "torchvision"
"""How the rows of torchvision's detectors begin."""
COLUMNS = AP_FIELDS
"""The columns of a table, a selection of the twelve numbers."""


def about(setting, teacher):
    """The record stored with every result: the setting of its table, the code, the teacher and the machine."""
    return {
        "setting": setting,
        "commit": commit(),
        "teacher_sha256": hashlib.sha256(Path(teacher).read_bytes()).hexdigest(),
        "machine": {
            "cpu": processor(),
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
            "torch": torch.__version__,
            "threads": int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())),
        },
    }


def commit():
    """The commit of the running code, with a plus if there are uncommitted changes; $COMMIT where there is no git."""
    if "COMMIT" in os.environ:
        return os.environ["COMMIT"]
    folder = Path(__file__).parent
    outputs = [
        subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()
        for words in (["rev-parse", "--short", "HEAD"], ["status", "--porcelain", "--untracked-files=no", "."])
    ]
    return outputs[0] + ("+" if outputs[1] else "")


def network_of(row, student):
    """The detector of a row: the one that it names, torchvision's or ours, or the student of the experiment."""
    words, _, name = row.partition("!")[0].partition(":")
    return name if name and words in (TORCHVISION, "plain") else student


def read(file):
    """The results in a file, in order; none if there is no file."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def append(file, result):
    """Append one result to a file; earlier results are not rewritten."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as stream:
        stream.write(json.dumps(result) + "\n")


def same_setting(result, common):
    """Whether a result belongs to the same table: the same setting and the same teacher."""
    return all(result[name] == common[name] for name in ("setting", "teacher_sha256"))


def cell(values):
    """Mean and standard error of a column; a dash if it is not defined."""
    if any(math.isnan(value) for value in values):
        return "–"
    mean = statistics.fmean(values)
    if len(values) == 1:
        return f"{mean:.1f}"
    return f"{mean:.1f} ± {statistics.stdev(values) / math.sqrt(len(values)):.1f}"


def interval(differences):
    """The mean of paired differences and half of its 95 % confidence interval, by Student's distribution."""
    mean, count = statistics.fmean(differences), len(differences)
    if count < 2:
        return mean, math.nan
    error = statistics.stdev(differences) / math.sqrt(count)
    return mean, float(stats.t.ppf(0.975, count - 1)) * error


def compared(mine, plain):
    """The differences of a method's AP to plain training, seed by seed: each, mean, half an interval, and the verdict.

    The verdict is ``gains`` or ``loses`` where the interval excludes 0, else empty.
    """
    paired = [one["ap"] - plain[one["seed"]] for one in mine if one["seed"] in plain]
    mean, half = interval(paired) if paired else (math.nan, math.nan)
    verdict = "gains" if mean - half > 0 else "loses" if mean + half < 0 else ""
    return ", ".join(f"{value:+.1f}" for value in paired), mean, half, verdict


def difference(mine, plain):
    """The difference of a method's AP to the first row, seed by seed, and whether it is significant."""
    each, mean, half, verdict = compared(mine, plain)
    if math.isnan(half):
        return f"{mean:+.1f} (one seed)" if each else "–"
    return f"{mean:+.1f} ± {half:.1f} ({each}): {verdict or 'not told apart'}"


def cells(mine):
    """The cells of a method's columns."""
    return [cell([one[name] for one in mine]) for name in COLUMNS.values()]


def table(done):
    """The Markdown table of results: means with standard errors, and the difference to the first method."""
    head = ["method", "seeds", *COLUMNS, "AP beside the first, by seed, 95 % interval"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    first = [one for one in done if one["method"] == done[0]["method"]]
    plain = {one["seed"]: one["ap"] for one in first}
    for method in dict.fromkeys(one["method"] for one in done):
        mine = [one for one in done if one["method"] == method]
        apart = "" if method == done[0]["method"] else difference(mine, plain)
        lines.append(f"| {method} | {len(mine)} | " + " | ".join([*cells(mine), apart]) + " |")
    return "\n".join(lines)
