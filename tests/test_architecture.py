"""Who may import whom, what is documented, and what is loaded when: the promises of docs/design.md, checked."""

import ast
import re
import subprocess
import sys
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

import ladle

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "ladle"
FILES = sorted(SOURCE.rglob("*.py"))

BASE = {
    "types",
    "boxes",
    "device",
    "averaging",
    "similarity",
    "overlaps",
    "windows",
    "all_pairs",
    "pairs",
    "nearest",
    "bags",
    "errors",
    "files",
    "limits",
    "locks",
    "names",
    "untrusted",
    "children",
    "streams",
}
MATHS = BASE | {"losses", "networks"}
PARTS = MATHS | {"assigners", "criteria", "distillers", "detectors"}
LEARNING = PARTS | {"lessons", "families", "teachers", "objectives", "methods"}
BESIDE = {"data", "evaluation", "statistics", "visual"}
MAY_IMPORT = {
    "errors": set(),
    "files": {"errors"},
    "limits": {"errors"},
    "locks": {"errors"},
    "streams": set(),
    "children": {"errors", "streams"},
    "untrusted": {"errors", "limits"},
    "names": set(),
    "types": {"errors"},
    "boxes": {"types"},
    "device": set(),
    "averaging": set(),
    "similarity": {"boxes"},
    "kernels": {"boxes", "device", "similarity", "windows"},
    "overlaps": {"types", "boxes", "device", "similarity"},
    "windows": {"types", "boxes", "device"},
    "all_pairs": {"types", "boxes", "device", "overlaps"},
    "pairs": {"types", "boxes", "device", "overlaps", "windows"},
    "nearest": {"types", "boxes", "overlaps"},
    "bags": {"types", "boxes", "device", "all_pairs", "pairs"},
    "networks": {"types"},
    "values": {"errors", "limits"},
    "losses": BASE,
    "assigners": MATHS,
    "criteria": MATHS,
    "distillers": MATHS,
    "detectors": MATHS,
    "lessons": {"types", "assigners", "distillers"},
    "replays": {"types", "assigners", "device"},
    "families": PARTS | {"lessons"},
    "teachers": PARTS | {"families"},
    "objectives": PARTS | {"lessons", "replays", "teachers"},
    "methods": PARTS | {"lessons", "families", "objectives", "values"},
    "data": BASE,
    "evaluation": BASE,
    "statistics": BASE,
    "visual": BASE,
    "exporting": BASE | {"detectors"},
    "testing": {"types", "boxes", "device"},
    "engine": {"types", "averaging", "device", "errors", "files", "limits", "untrusted", "children"},
    "recipes": LEARNING | BESIDE | {"engine", "exporting", "testing", "values"},
    "cli": {"errors", "limits", "locks", "recipes", "streams", "untrusted", "values"},
    "__main__": {"cli"},
    "__init__": {"errors", "detectors", "lessons", "objectives", "recipes", "teachers"},
}
"""What each part needs besides itself."""


def module_of(file):
    parts = file.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def part_of(file):
    return file.relative_to(SOURCE).with_suffix("").parts[0]


@cache
def parsed(file):
    return ast.parse(file.read_text(encoding="utf-8"))


def imports(tree):
    """The parts of ladle that a module imports, anywhere in it."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return {name.split(".")[1] for name in names if name.startswith("ladle.")}


@pytest.mark.parametrize("file", FILES, ids=module_of)
def test_a_part_imports_only_what_its_layer_allows(file):
    part = part_of(file)
    assert part in MAY_IMPORT, f"{part} is in no layer: place it in docs/design.md and here"
    beyond = imports(parsed(file)) - MAY_IMPORT[part] - {part}
    assert not beyond, f"{module_of(file)} imports {sorted(beyond)}"


def test_the_layers_have_no_circle():
    above = {part: below - {part} for part, below in MAY_IMPORT.items()}
    while above:
        lowest = {part for part, below in above.items() if not below & set(above)}
        assert lowest, f"a circle among {sorted(above)}"
        above = {part: below for part, below in above.items() if part not in lowest}


def public(tree):
    """The strings of a module's ``__all__``."""
    lists = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and [getattr(target, "id", "") for target in node.targets] == ["__all__"]
    ]
    return ast.literal_eval(lists[0]) if lists else None


def undocumented(tree, names):
    """The public definitions, and the public methods of classes, that lack a docstring."""
    for position, node in enumerate(tree.body):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name in names:
            yield from [node.name] * (ast.get_docstring(node) is None)
            yield from (f"{node.name}.{name}" for name in bare_methods(node))
        elif isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") in names:
            yield from [node.targets[0].id] * (not is_alias(node.value) and not is_explained(tree.body[position:]))


def bare_methods(node):
    """Public methods without a docstring; the attributes of a protocol, whose body is ``...``, belong to the class."""
    methods = (
        [item for item in node.body if isinstance(item, ast.FunctionDef)] if isinstance(node, ast.ClassDef) else []
    )
    written = [m for m in methods if not (m.decorator_list and ast.unparse(m.body[-1]) == "...")]
    return [m.name for m in written if not m.name.startswith("_") and not ast.get_docstring(m)]


def is_explained(nodes):
    """Whether a text stands below the first constant, or below the group of constants that it opens."""
    return is_text(next((node for node in nodes if not isinstance(node, ast.Assign)), None))


def is_text(node):
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def is_alias(value):
    """A type under another name, such as ``Literal["a", "b"]``, says what it is."""
    return isinstance(value, ast.Subscript)


@pytest.mark.parametrize("file", FILES, ids=module_of)
def test_every_public_name_exists_and_is_documented(file):
    tree = parsed(file)
    assert ast.get_docstring(tree), "the module has no docstring"
    names = public(tree)
    if names is None:
        assert not [node for node in tree.body if not is_text(node)], "the module has code but no __all__"
        return
    assert len(set(names)) == len(names)
    module = import_module(module_of(file))
    assert [name for name in names if not hasattr(module, name)] == []
    assert list(undocumented(tree, set(names))) == []


def test_every_name_that_ladle_offers_resolves():
    offered = {name: getattr(ladle, name) for name in ladle.__all__}
    assert [name for name, value in offered.items() if not value.__doc__] == []
    assert set(ladle.__all__) <= set(dir(ladle))
    with pytest.raises(AttributeError, match="no_such_thing"):
        ladle.no_such_thing  # noqa: B018


def loaded_by(code):
    """The heavy packages in memory after ``code`` ran in a fresh interpreter."""
    heavy = "{'torch', 'torchvision', 'timm', 'matplotlib', 'lightning_fabric', 'jsonargparse', 'rich', 'numpy'}"
    code = f"import sys; {code}; print('loaded:', *sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.rpartition("loaded:")[2].split()


def test_importing_ladle_loads_nothing_heavy():
    assert loaded_by("import ladle") == []


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["tarin"], []])
def test_the_command_line_answers_before_anything_heavy_is_loaded(words):
    assert loaded_by(f"from ladle.cli.main import main; main({words})") == []


def test_no_file_holds_a_path_of_one_machine_or_an_unfinished_note():
    places = "|".join(("work", "tmp", "root", "home"))
    unwanted = re.compile(rf"(?<![\w.])/({places})/|\b(TO" + r"DO|FIX" + r"ME)\b")
    texts = [file for folder in ("src", "tests") for file in (ROOT / folder).rglob("*") if file.is_file()]
    texts = [file for file in texts if file.suffix in {".py", ".md", ".toml", ".yaml", ".json", ".txt", ".typed"}]
    found = [str(file.relative_to(ROOT)) for file in texts if unwanted.search(file.read_text(errors="ignore"))]
    assert len(texts) > 100
    assert found == []


def test_no_family_and_no_assigner_is_known_by_its_name_outside_its_own_file():
    from ladle.families import families
    from ladle.recipes.parts import ASSIGNERS

    names = {*families(), *ASSIGNERS}
    found = [
        f"{module_of(file)}: {node.value}"
        for file in FILES
        if part_of(file) not in ("families", "assigners")
        for node in ast.walk(parsed(file))
        if isinstance(node, ast.Constant) and node.value in names
    ]
    assert len(names) == 23
    assert found == []


def functions():
    """Every function of the package: its module, its name and its node."""
    for file in FILES:
        for node in ast.walk(parsed(file)):
            if isinstance(node, ast.FunctionDef):
                yield file, node


def test_functions_and_files_stay_short():
    lengths = sorted(node.end_lineno - node.lineno + 1 for _, node in functions())
    assert lengths[int(0.95 * len(lengths))] <= 25
    assert max(len(file.read_text(encoding="utf-8").splitlines()) for file in FILES) <= 400


def test_an_assigner_is_handed_on_by_few_functions():
    """It is resolved once; after that it is a field of a lesson."""
    passing = [
        f"{module_of(file)}.{node.name}"
        for file, node in functions()
        if any(one.arg == "assigner" for one in [*node.args.args, *node.args.kwonlyargs])
    ]
    assert "ladle.recipes.train.train" in passing
    assert len(passing) <= 15, passing
