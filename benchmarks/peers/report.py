"""The numbers of a run as tables in the terminal and in the documentation, and as a chart."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from argparse import Namespace
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peers import calm
from peers.case import SCENES
from PIL import Image
from rich.console import Console
from rich.markup import escape
from rich.table import Table

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "benchmarks.md"
CHART = ROOT / "docs" / "images" / "assigners_speed.png"
START, END = "<!-- measured: start -->", "<!-- measured: end -->"
CROWDS = (("2,000 objects in one image of 640 × 640", 1024), ("4 images of 800 × 1344 with 150 objects", 256))
"""What is measured where objects are many, and the MiB it may take."""
CAPTION = (
    "![Milliseconds of ours and of every peer on four scenes, on a logarithmic scale](images/assigners_speed.png)\n\n"
    "*Blue is Ladle, orange the peers; the number says how far the fastest of them is behind.*"
)
PACKAGES = "torch torchvision mmdet mmcv-lite scikit-learn scipy POT yolox ultralytics transformers".split()  # noqa: SIM905


def append_line(file: str, line: dict[str, Any]) -> None:
    """Append a line of JSON with the machine, the commit and PyTorch's version; ``line["device"]`` is cpu or cuda."""
    place = torch.cuda.get_device_name() if line["device"] == "cuda" else platform.machine()
    where = {"machine": place, "torch": torch.__version__, "commit": commit()}
    with Path(file).open("a", encoding="utf-8") as opened:
        opened.write(json.dumps(line | where) + "\n")


class Outcome(NamedTuple):
    """What became of one contender: median and least ms, peak MiB, timed runs, percent alike with ours; or why it did
    not run.
    """

    ms: float | None = None
    least: float | None = None
    mb: float | None = None
    runs: int = 0
    same: float | None = None
    note: str = ""


class Line(NamedTuple):
    """An assigner on a scene. ``outcomes`` holds "ours", perhaps "compiled", and the peers, of which the first is the
    reference; ``foreign`` is the share of the machine that other processes took meanwhile.
    """

    scene: str
    assigner: str
    outcomes: dict[str, Outcome]
    bar: float | None
    peers: tuple[str, ...]
    foreign: float = 0.0

    @property
    def fastest(self) -> str | None:
        """The peer with the smallest median."""
        ran = [name for name in self.peers if self.outcomes[name].ms is not None]
        return min(ran, key=lambda name: self.outcomes[name].ms, default=None)

    @property
    def ratio(self) -> float | None:
        """Median of the fastest peer over ours; above 1 ours is faster."""
        ours = self.outcomes["ours"].ms
        return self.outcomes[self.fastest].ms / ours if self.fastest and ours else None

    @property
    def ratio_of_minima(self) -> float | None:
        """The same of the least times, which other processes disturb less."""
        ours = self.outcomes["ours"].least
        others = [self.outcomes[name].least for name in self.peers if self.outcomes[name].least]
        return min(others) / ours if others and ours else None

    @property
    def missed(self) -> bool:
        """Whether a bar is set and not reached."""
        return bool(self.bar and self.ratio and self.ratio < self.bar)


# -------------------------------------------------------------------------------------------------------------- tables


def number(value: float | None) -> str:
    """Three significant digits, or a dash."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def main_table(lines: list[Line]) -> tuple[list[str], list[list[str]]]:
    """Ours beside the fastest peer."""
    compiled = any("compiled" in line.outcomes for line in lines)
    head = ["scene", "assigner", "ours, ms", *["compiled, ms"] * compiled, "ours, MiB", "fastest peer", "ms", "MiB"]
    head += ["ratio", "of minima", "bar", "alike"]
    body = []
    for line in lines:
        ours, peer = line.outcomes["ours"], line.outcomes.get(line.fastest, Outcome())
        fast = line.outcomes.get("compiled", Outcome())
        cells = [SCENES[line.scene], line.assigner, ours.note or number(ours.ms)]
        cells += [fast.note or number(fast.ms)] * compiled
        cells += [number(ours.mb), line.fastest or nobody(line), number(peer.ms), number(peer.mb)]
        cells += [*(f"{number(ratio)}×" if ratio else "–" for ratio in (line.ratio, line.ratio_of_minima))]
        cells += [bar(line), alike(line)]
        body.append(cells)
    return head, body


def nobody(line: Line) -> str:
    """Why there is no fastest peer."""
    return "absent" if line.peers else "none can be installed"


def bar(line: Line) -> str:
    """The ratio to reach, and whether it is missed."""
    return "–" if line.bar is None else f"{line.bar:g}×" + (" missed" if line.missed else "")


def alike(line: Line) -> str:
    """Agreement with the reference."""
    same = line.outcomes[line.peers[0]].same if line.peers else None
    return "–" if same is None else percent(same)


def percent(same: float) -> str:
    """Never rounded up to all."""
    return "100 %" if same == 100 else f"{min(same, 99.99):.2f} %"


def peer_table(lines: list[Line]) -> tuple[list[str], list[list[str]]]:
    """Every peer on every scene."""
    scenes = list(dict.fromkeys(line.scene for line in lines))
    head = ["assigner", "peer", *(f"{SCENES[scene]}, ms" for scene in scenes), "MiB at most", "alike with ours"]
    body = []
    for assigner in dict.fromkeys(line.assigner for line in lines):
        mine = {line.scene: line for line in lines if line.assigner == assigner}
        for peer in next(iter(mine.values())).peers:
            found = [mine[scene].outcomes[peer] for scene in scenes]
            same = [outcome.same for outcome in found if outcome.same is not None]
            body.append(
                [
                    assigner,
                    peer,
                    *(outcome.note or number(outcome.ms) for outcome in found),
                    number(max((outcome.mb for outcome in found if outcome.mb is not None), default=None)),
                    percent(min(same)) if same else "–",
                ]
            )
    return head, body


def crowd_table(crowds: dict[str, tuple[Outcome, Outcome]]) -> tuple[list[str], list[list[str]]]:
    """Peaks of ours where objects are many."""
    head = ["assigner", *(f"{title}, MiB (bar {limit:,})" for title, limit in CROWDS)]
    body = []
    for name, found in crowds.items():
        cells = [
            outcome.note or number(outcome.mb) + (" missed" if outcome.mb > limit else "")
            for outcome, (_, limit) in zip(found, CROWDS, strict=True)
        ]
        body.append([name, *cells])
    return head, body


def record(file: str, line: Line, device: str) -> None:
    """Append the outcomes of one assigner on one scene."""
    outcomes = {title: outcome._asdict() for title, outcome in line.outcomes.items()}
    row = {"table": "assigners", "device": device, "scene": line.scene, "assigner": line.assigner}
    append_line(file, row | {"outcomes": outcomes, "foreign": line.foreign})


def progress(line: Line) -> None:
    """One line as soon as it is measured."""
    parts = [
        f"{name} {outcome.note or number(outcome.ms) + ' ms'}" + (f" ({number(outcome.mb)} MiB)" if outcome.mb else "")
        for name, outcome in line.outcomes.items()
    ]
    busy = f" [other processes took {line.foreign:.0%} of the machine]" if line.foreign >= calm.CALM else ""
    print(f"{line.scene} {line.assigner}: {' · '.join(parts)}{busy}", flush=True)


def show(lines: list[Line], crowds: dict[str, tuple[Outcome, Outcome]]) -> None:
    """Print all tables."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    for title, (head, body) in tables(lines, crowds):
        table = Table(*head, title=title, title_justify="left")
        for cells in body:
            table.add_row(*map(escape, cells), style="bold red" if any("missed" in cell for cell in cells) else "")
        console.print(table)


def tables(
    lines: list[Line], crowds: dict[str, tuple[Outcome, Outcome]]
) -> list[tuple[str, tuple[list[str], list[list[str]]]]]:
    """All tables with their titles."""
    found = [("Ours and the fastest peer", main_table(lines)), ("Every peer", peer_table(lines))]
    return found + ([("Peak memory where objects are many", crowd_table(crowds))] if crowds else [])


# ------------------------------------------------------------------------------------------------------ documentation


def write(lines: list[Line], crowds: dict[str, tuple[Outcome, Outcome]], arguments: Namespace) -> None:
    """Put the tables between the marks of the page and draw the chart."""
    parts = [CAPTION, conditions(lines, arguments)]
    for title, (head, body) in tables(lines, crowds):
        rows = [head, ["---"] * len(head), *body]
        parts.append(f"### {title}\n\n" + "\n".join(f"| {' | '.join(cells)} |" for cells in rows))
    text = PAGE.read_text(encoding="utf-8")
    block = f"{START}\n\n" + "\n\n".join(parts) + f"\n\n{END}"
    PAGE.write_text(re.sub(f"{START}.*{END}", lambda _: block, text, flags=re.DOTALL), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)} and {draw(lines, CHART).relative_to(ROOT)}")


def conditions(lines: list[Line], arguments: Namespace) -> str:
    """The command, the commit, the machine and the versions."""
    command = f"python benchmarks/assigners.py --threads {arguments.threads} --runs {arguments.runs}"
    command += f" --device {arguments.device}" * (arguments.device != "cpu") + " --compile" * arguments.compile
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return (
        f"```\n{command} --write\n```\n\nCommit {commit()}, {machine(arguments.device)}, {arguments.threads} threads, "
        f"Python {platform.python_version()}; {versions}. Other processes took at most "
        f"{max(line.foreign for line in lines):.1%} of the machine while a row was measured."
    )


def version(package: str) -> str:
    """A package's version, or that it is absent."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "absent"


def commit() -> str:
    """The commit measured, and whether the source differs from it; $COMMIT where there is no git."""
    if "COMMIT" in os.environ:
        return os.environ["COMMIT"]

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    return (git("rev-parse", "--short", "HEAD") or "unknown") + " with changes" * bool(git("status", "--short", "src"))


def machine(device: str) -> str:
    """The processor's name as it calls itself."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    file = Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*: (.*)$", file.read_text() if file.exists() else "", flags=re.MULTILINE)
    return f"{os.cpu_count()} cores of {names[0] if names else platform.processor()}"


# -------------------------------------------------------------------------------------------------------------- chart


def draw(lines: list[Line], path: Path) -> Path:
    """A panel a scene, a row an assigner: ours, every peer, and how far the fastest of them is behind."""
    from ladle.visual.charts import new_figure, save_figure
    from ladle.visual.palette import FAINT, INK, MUTED, color

    names = list(dict.fromkeys(line.assigner for line in lines))
    times = [outcome.ms for line in lines for outcome in line.outcomes.values() if outcome.ms]
    figure = new_figure(9.0, 1.25 + 0.47 * len(names))
    axes = figure.subplots(2, 2, sharex=True, sharey=True)
    figure.subplots_adjust(left=0.145, right=0.985, top=0.895, bottom=0.085, hspace=0.19, wspace=0.05)
    for axis, scene in zip(axes.flat, SCENES, strict=True):
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter("{x:,g}")
        axis.set(xlim=(min(times) / 1.6, max(times) * 4), ylim=(len(names) - 0.4, -0.6))
        axis.set_yticks(range(len(names)), names, fontsize=9.5, color=INK)
        axis.set_title(f"{SCENES[scene]} objects", loc="left", fontsize=10, fontweight="bold", color=INK, pad=5)
        axis.spines[["top", "right", "left"]].set_visible(False)
        axis.spines["bottom"].set_color("#b6bac2")
        axis.tick_params(axis="x", which="both", colors=MUTED, labelsize=9, length=0)
        axis.tick_params(axis="y", length=0)
        axis.grid(axis="x", color=FAINT, linewidth=0.8)
        axis.set_axisbelow(True)
        for line in (line for line in lines if line.scene == scene):
            _draw_line(axis, names.index(line.assigner), line, (color(0), color(1)), INK)
    for axis in axes[1]:
        axis.set_xlabel("ms for four images, median", color=MUTED, fontsize=9.5)
    _draw_legend(figure, color)
    save_figure(figure, path)
    with Image.open(path) as image:
        small = image.convert("RGB").quantize(64)
    small.save(path, optimize=True)
    return path


def _draw_line(axis: Any, row: int, line: Line, shades: tuple[str, str], ink: str) -> None:
    ours, theirs = line.outcomes["ours"].ms, [line.outcomes[peer].ms for peer in line.peers]
    theirs = sorted(ms for ms in theirs if ms)
    if ours and theirs:
        axis.plot([ours, theirs[0]], [row, row], color="#b6bac2", linewidth=1.6, zorder=2)
        text = f"{number(line.ratio)}×"
        axis.text(max(theirs[-1], ours) * 1.25, row, text, va="center", fontsize=8.5, color=ink)
    axis.plot(theirs, [row] * len(theirs), "o", color=shades[1], markersize=4.5, markerfacecolor="white", zorder=3)
    if ours:
        axis.plot(ours, row, "o", color=shades[0], markersize=7, markeredgecolor="white", zorder=4)


def _draw_legend(figure: Any, color: Any) -> None:
    from matplotlib.lines import Line2D

    marks = [
        Line2D([], [], linestyle="", marker="o", color=color(0), markersize=7, label="Ladle"),
        Line2D(
            [], [], linestyle="", marker="o", color=color(1), markerfacecolor="white", markersize=4.5, label="peers"
        ),
        Line2D([], [], color="#b6bac2", linewidth=1.6, label="to the fastest peer, and the ratio"),
    ]
    figure.legend(handles=marks, loc="upper right", ncols=3, frameon=False, fontsize=9, bbox_to_anchor=(0.99, 0.995))
