"""The documentation is true: its code runs, its links lead somewhere, its tables are those of the code."""

import ast
import inspect
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
from dataclasses import MISSING, fields, is_dataclass
from importlib import import_module
from pathlib import Path
from urllib.parse import unquote

import pytest
from PIL import Image

from ladle import assigners, criteria, distillers, recipes, types
from ladle.cli.main import VERBS
from ladle.families import detector_spec, families
from ladle.lessons import Lesson, TeacherJudges
from ladle.methods import WORDS, plan_for
from ladle.recipes.parts import ASSIGNERS
from ladle.testing import ASSIGNER_LAWS, DISTILLER_LAWS
from tests.families import HOME

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
SOURCE = ROOT / "src" / "ladle"
PAGES = [*sorted(DOCS.rglob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
OFFERED = [getattr(package, name) for package in (assigners, distillers) for name in package.__all__]
PLACES = {"assigners/cost_selector": "distillers/colad"}
"""Pages that are not called as the module of their part."""
MODULES = [(part, "/".join(part.__module__.split(".")[1:])) for part in OFFERED]
PARTS = {
    PLACES.get(module, module) + ".md": part
    for part, module in MODULES
    if is_dataclass(part) and {"__call__", "build"} & set(vars(part))
}
"""Every assigner and distiller by its page, which is called as its module."""
HEADINGS = [
    "What it does",
    "Formula",
    "Image",
    "Fields and defaults",
    "Agreement with the reference",
    "Cost",
    "When to use it",
    "Source",
]


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def text_of(page):
    return (DOCS / page).read_text(encoding="utf-8")


def without_code(text):
    return re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)


def rows(text):
    """The cells of every row of every table in a text, heads and rules included."""
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line[:1] == "|"]


def section(text, heading):
    return re.split(r"^## ", text.split(f"\n## {heading}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


# ------------------------------------------------------------------------------------------------- pages and images


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_somewhere(page):
    text = without_code(page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("https://"):
            continue
        place, _, anchor = target.partition("#")
        file = (page.parent / unquote(place)).resolve() if place else page
        assert file.exists(), f"{name_of(page)} points to {target}, which is not there"
        assert file.is_relative_to(ROOT), f"{name_of(page)} points to {target}, outside the repository"
        assert not anchor or anchor in anchors(file), f"{name_of(page)} points to {target}, which has no such heading"


def anchors(file):
    heads = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=name_of)
def test_every_page_can_be_reached_from_the_readme(page):
    seen, todo = set(), [ROOT / "README.md"]
    while todo:
        file = todo.pop()
        if file in seen or not file.is_file() or file.suffix != ".md":
            continue
        seen.add(file)
        links = re.findall(r"\]\(([^)#\s]+)", without_code(file.read_text(encoding="utf-8")))
        todo += [(file.parent / link).resolve() for link in links if "://" not in link]
    assert page in seen


def test_every_image_is_used_and_small():
    shown = {file.name for page in PAGES for file in map(Path, re.findall(r"!\[[^\]]+\]\(([^)]+)\)", page.read_text()))}
    drawn = sorted((DOCS / "images").glob("*.png"))
    for file in drawn:
        assert file.stat().st_size < 150_000, f"{file.name} is too large for a page"
        assert file.name in shown, f"{file.name} is on no page"
        with Image.open(file) as image:
            assert image.width >= 600


def test_nothing_in_the_documentation_names_a_machine():
    for page in PAGES:
        assert not re.search(r"(?<![\w.])/(home|root|work|tmp|Users)/", page.read_text(encoding="utf-8")), name_of(page)


# -------------------------------------------------------------------------------------------- assigners and distillers


def test_no_page_has_a_paragraph_that_stands_for_one_to_be_written():
    left = [
        f"{page.name}: {line}"
        for page in PAGES
        for line in page.read_text(encoding="utf-8").splitlines()
        if re.fullmatch(r"[A-Z]{4,}:?|(TO" + r"DO|TBD|FIX" + r"ME|XXX)\b.*", line)
    ]
    assert left == []


def test_every_public_assigner_and_distiller_has_a_page():
    assert len(PARTS) >= 4
    for page in PARTS:
        assert (DOCS / page).is_file(), f"docs/{page} is missing"
        assert f"({Path(page).name})" in text_of(f"{Path(page).parent}/index.md"), f"{page} is not in its index"


@pytest.mark.parametrize("page", [*PARTS, "distillers/lad.md"])
def test_pages_of_parts_have_the_same_headings(page):
    assert re.findall(r"^## (.*)$", text_of(page), flags=re.MULTILINE) == HEADINGS


@pytest.mark.parametrize(("page", "part"), PARTS.items(), ids=PARTS)
def test_the_table_of_fields_is_that_of_the_class(page, part):
    written = {row[0].strip("`"): row[1].strip("`") for row in rows(section(text_of(page), "Fields and defaults"))[2:]}
    assert written == {field.name: spelled(field) for field in fields(part)}


def spelled(field):
    value = field.default if field.default is not MISSING else field.default_factory()
    return f'"{value}"' if isinstance(value, str) else repr(value)


def test_lad_and_solad_are_built_as_their_page_says():
    words = vars(assigners) | vars(distillers) | vars(criteria)
    words |= {"Lesson": Lesson, "TeacherJudges": TeacherJudges, "families": families}
    for student, method, judge, lesson in rows(section(text_of("distillers/lad.md"), "Fields and defaults"))[2:]:
        family = student.strip("`").partition("-")[0]
        spec = detector_spec(f"{family}-tiny", ("object",))
        plan = plan_for(method.strip("`"), spec, spec)
        found = plan.lessons[0]
        assert ("student" if found.judge is None else "teacher") == judge.strip("`")
        assert found == eval(lesson.strip("`"), words)


@pytest.mark.parametrize("page", ["distillers/index.md", "cli.md"])
def test_every_method_is_explained(page):
    for method in WORDS:
        assert method == "plain" or f"`{method}`" in text_of(page)


def test_the_families_are_those_of_the_code():
    """Each with its assigner, its kind of boxes and its branch, and with the teachers that have its priors."""
    table = [row for row in rows(section(text_of("cli.md"), "models")) if row[0].strip("`") in HOME]
    assert [row[0].strip("`") for row in table] == list(HOME)
    heads = {family: detector_spec(f"{family}-tiny", ("object",)).head for family in HOME}
    for name, priors, boxes, quality, assigner, _ in table:
        head = heads[name.strip("`")]
        assert re.findall(r"\[(\w+)\]", assigner) == [HOME[name.strip("`")]]
        assert boxes.startswith(head.box)
        assert (quality != "none") == head.quality
        assert priors.startswith({1: "one", 9: "nine"}[head.anchors.per_location])
    written = [
        re.findall(r"`(\w+)`", row[0]) for row in rows(section(text_of("distillers/index.md"), "Which teachers"))[2:]
    ]
    assert sorted(family for alike in written for family in alike) == sorted(HOME)
    for alike in written:
        for family in HOME:
            assert (heads[family].anchors == heads[alike[0]].anchors) == (family in alike)


def test_the_homes_of_assigners_are_those_of_the_code():
    table = rows(text_of("assigners/index.md"))[2:]
    assert {re.findall(r"\[(\w+)\]", row[0])[0] for row in table} == set(ASSIGNERS)
    for row in table:
        name = re.findall(r"\[(\w+)\]", row[0])[0]
        homes = {family for family, home in HOME.items() if home == name}
        assert set(re.findall(r"`(\w+)-\*`", row[3])) == homes


def test_the_table_of_objects_without_a_positive_is_that_of_its_file():
    rows_of_file = json.loads((DOCS / "results" / "assign.json").read_text(encoding="utf-8"))
    make = runpy.run_path(str(ROOT / "benchmarks" / "assignments.py"))["table"]
    assert make(rows_of_file) in text_of("assign.md")
    assert {row["assigner"].partition("(")[0] for row in rows_of_file} == set(ASSIGNERS)


def test_the_cost_of_coco_is_that_of_the_measured_steps():
    lines = [json.loads(line) for line in (DOCS / "results" / "gpu.jsonl").read_text(encoding="utf-8").splitlines()]
    step = [one for one in lines if one["table"] == "share" and one["family"] == "paa"][-1]
    hours = 12 * 117_266 / step["batch"] * step["step"] / 1000 / 3600
    section = text_of("benchmarks.md").partition("## Train COCO with LAD")[2]
    assert f"12 epochs | 1.41 million | {hours:.1f} hours | {hours / 8:.1f} hours |" in section
    assert f"{step['step']:.1f} ms" in section
    assert "8.8 hours | 1.1 hours" in section  # 0.09 s a step of LAD
    assert f"{12 * 117_266 / 4 * 0.09 / 3600:.1f}" == "8.8"


# ---------------------------------------------------------------------------------------------------- the command line


def described_flags(verb):
    """Flag to default, as the tables under a verb's heading say."""
    return {
        row[0].strip("`").split()[0]: row[1] for row in rows(section(text_of("cli.md"), verb)) if row[0][:3] == "`--"
    }


def parameters(verb):
    given = inspect.signature(getattr(recipes, verb.replace(" ", "_"))).parameters
    return {name: one.default for name, one in given.items() if name != "run"}


def assert_flags(described, expected):
    assert {name.removeprefix("--").replace("-", "_") for name in described} == set(expected)
    for flag, cell in described.items():
        default = expected[flag.removeprefix("--").replace("-", "_")]
        if default is inspect.Parameter.empty:
            assert cell == "required", f"{flag} has no default"
        elif default is None:
            assert "`" not in cell or cell.startswith("by "), f"{flag} has no fixed default, {cell} is said"
        else:
            shown = str(default).lower() if isinstance(default, bool) else str(default)
            assert cell == f"`{shown}`", f"{flag} is {shown} by default, {cell} is said"


@pytest.mark.parametrize("verb", VERBS)
def test_every_flag_of_a_verb_is_described_with_its_default(verb):
    assert_flags(described_flags(verb), parameters(verb))


def test_every_flag_of_a_run_is_described_with_its_default():
    assert_flags(described_flags("Flags of a run"), {field.name: field.default for field in fields(recipes.Run)})


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_that_is_shown_exists(page):
    for verb, words in re.findall(
        rf"(?:^|`)ladle ({'|'.join(VERBS)}|[a-z]+)\b([^`\n]*)", page.read_text(encoding="utf-8"), flags=re.MULTILINE
    ):
        if any(known.startswith(f"{verb} ") for known in VERBS):
            assert not words.strip(), f"{name_of(page)} shows `ladle {verb}{words}`"
            continue
        assert verb in VERBS, f"{name_of(page)} shows `ladle {verb}`"
        known = set(parameters(verb)) | {"help", "config"}
        known |= {field.name for field in fields(recipes.Run)} if verb in ("train", "distill", "colearn") else set()
        for flag in re.findall(r"--([\w-]+)", words):
            assert flag.replace("-", "_") in known, f"{name_of(page)} shows `ladle {verb} --{flag}`"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_name_that_is_imported_exists(page):
    for block in blocks(page.read_text(encoding="utf-8"), "python"):
        for module, names in re.findall(r"^from (ladle[\w.]*) import (.+)$", block, flags=re.MULTILINE):
            for name in names.split(", "):
                assert hasattr(import_module(module), name), f"{name_of(page)} imports {name} from {module}"


# --------------------------------------------------------------------------------------------------------- the design


def test_the_records_are_those_of_the_code():
    written = {row[0].strip("`"): row[1] for row in rows(section(text_of("design.md"), "The records"))[2:]}
    parts = [getattr(types, name) for name in types.__all__ if name != "Record"]
    records = [part for part in parts if isinstance(part, type)]
    for record in records:
        names = record._fields if hasattr(record, "_fields") else [field.name for field in fields(record)]
        assert re.findall(r"`(\w+)`", written[record.__name__]) == list(names)
    assert set(written) == {record.__name__ for record in records}


def test_quoted_code_is_the_code():
    source = squeezed(SOURCE.joinpath("objectives/training_step.py").read_text(encoding="utf-8"))
    (step,) = blocks(section(text_of("design.md"), "One training step"), "python")
    assert squeezed(step) in source
    idea, _ = blocks(section((ROOT / "README.md").read_text(encoding="utf-8"), "The idea"), "python")
    for line in idea.strip().splitlines():
        assert squeezed(line.partition("  #")[0]) in source


def squeezed(code):
    """The words alone, however lines are broken."""
    return re.sub(r"(?<=\() | (?=\))", "", " ".join(code.split()))


def test_packages_import_what_the_design_lets_them():
    table = rows(section(text_of("design.md"), "Folders"))[2:]
    allowed = {name: set(re.findall(r"`(\w+)`", row[1])) for row in table for name in re.findall(r"`(\w+)`", row[0])}
    allowed["recipes"] = set(allowed) - {"cli"}
    packages = {path.stem for path in SOURCE.iterdir() if (path / "__init__.py").is_file() or path.suffix == ".py"}
    assert set(allowed) == packages - {"__init__"}
    for file in SOURCE.rglob("*.py"):
        package = file.relative_to(SOURCE).with_suffix("").parts[0]
        if package != "__init__":
            assert imported(file) - {package} <= allowed[package], name_of(file)


def imported(file):
    """The packages of Ladle that a module imports, wherever in it."""
    tree = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
    names = [node.module for node in tree if isinstance(node, ast.ImportFrom) and (node.module or "")[:6] == "ladle."]
    return {name.split(".")[1] for name in names}


def test_the_laws_are_counted_and_listed():
    words = {4: "four", 13: "thirteen"}
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"{words[len(ASSIGNER_LAWS)]} laws for assigners and {words[len(DISTILLER_LAWS)]} for distillers" in readme
    listed = section((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), "The laws")
    assert listed.count("·") >= len(ASSIGNER_LAWS) - 1 + len(DISTILLER_LAWS) - 1


# ------------------------------------------------------------------------------------------------------- the tutorial


@pytest.mark.slow
def test_the_tutorial_runs_from_top_to_bottom(tmp_path):
    text = text_of("tutorial.md")
    order = re.findall(r"^```(bash|python)\n", text, flags=re.MULTILINE)
    assert order == sorted(order), "the commands come before the code"
    steps = [*map(as_python, blocks(text, "bash")), *blocks(text, "python")]
    said = run("\n".join(["from ladle.cli.main import main", *steps]), [sys.executable, "-"], tmp_path)
    assert said.count("obeys:") == len(ASSIGNER_LAWS)
    for file in (
        "runs/colearn/pair/weights/second-best.safetensors",
        "runs/val/student/results.json",
        "runs/predict/results.json",
    ):
        assert (tmp_path / file).is_file()
    for name in re.findall(r"^\| `([\w./]+)` \|", section(text, "Train a teacher"), flags=re.MULTILINE):
        assert (tmp_path / "runs/train/teacher" / name).exists()
    assert (tmp_path / "assignment.png").is_file()


def as_python(block):
    """The commands of a block as code, so that all of them run in one process, which imports PyTorch once."""
    if block.startswith("python - <<'END'\n"):
        return block.removeprefix("python - <<'END'\n").removesuffix("END\n")
    commands = [shlex.split(line) for line in block.replace("\\\n", " ").splitlines()]
    assert all(words[0] == "ladle" or words[:2] == ["python", "-c"] for words in commands), block
    return "\n".join(f"assert main({words[1:]}) == 0" if words[0] == "ladle" else words[2] for words in commands)


def run(script, command, folder):
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": path, "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    done = subprocess.run(
        command, input=script, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout
