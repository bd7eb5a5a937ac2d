"""The site shows every page, and its reference every public name."""

import re
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules, resolve_name

import pytest
import yaml

import ladle

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
REFERENCE = sorted((DOCS / "reference").glob("*.md"))
DIRECTIVE = re.compile(r"^::: ([\w.]+)$", flags=re.MULTILINE)
SHOWN = [name for page in REFERENCE for name in DIRECTIVE.findall(page.read_text(encoding="utf-8"))]
INSIDE = {"ladle.assets", "ladle.cli"}
"""Packages that offer nothing to a program."""
PACKAGES = {f"ladle.{module.name}" for module in iter_modules(ladle.__path__) if module.ispkg} - INSIDE


def leaves(entry):
    """The pages of a part of the navigation, in order."""
    if isinstance(entry, str):
        return [entry]
    parts = entry.values() if isinstance(entry, dict) else entry
    return [page for part in parts for page in leaves(part)]


NAV = leaves(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])


def test_the_navigation_lists_every_page_once():
    pages = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}
    assert sorted(NAV) == sorted(pages | {"CONTRIBUTING.md", "CHANGELOG.md"})


def test_the_navigation_goes_through_the_parts_in_the_order_of_the_index():
    linked = re.findall(r"\]\(([\w/.]+\.md)\)", (DOCS / "index.md").read_text(encoding="utf-8"))
    order = dict.fromkeys(Path(link).name if link.startswith("..") else link for link in linked)
    assert [page for page in NAV if page in order] == list(order)


def test_every_public_package_is_in_the_reference():
    assert len(PACKAGES) >= 12
    assert PACKAGES | {"ladle.types", "ladle.boxes", "ladle.overlaps", "ladle.testing"} <= set(SHOWN)


@pytest.mark.parametrize("name", SHOWN)
def test_what_the_reference_shows_exists(name):
    assert resolve_name(name).__doc__


def test_a_name_that_its_own_module_hides_is_shown_by_itself():
    """``ladle.recipes.train`` is a function and a module; of the package a directive shows neither."""
    for package in PACKAGES:
        modules = {module.name for module in iter_modules(import_module(package).__path__)}
        for name in modules & set(getattr(import_module(package), "__all__", ())):
            assert f"{package}.{name}.{name}" in SHOWN, f"{package}.{name} is hidden in the reference"


def test_the_index_of_the_reference_links_every_page_of_it():
    text = (DOCS / "reference" / "index.md").read_text(encoding="utf-8")
    assert {f"{page.stem}.md" for page in REFERENCE} == {*re.findall(r"\]\((\w+\.md)\)", text), "index.md"}
