"""What ``make docs`` changes in the pages of ``docs``, which are written to be read where they lie.

The pages link to files outside ``docs``: those that are pages become pages of the site, source files are shown as code.
Formulas become MathML, which browsers draw by themselves. In docstrings ``:class:`Term``` becomes ``Term``, as code.
"""

from __future__ import annotations

import re
from html import unescape
from os.path import normpath, relpath
from pathlib import Path, PurePosixPath

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PAGES = ("CONTRIBUTING.md", "CHANGELOG.md")
"""Pages beside ``docs`` that the site has too."""
LINK = re.compile(r"(?<=\]\()[^)#\s:]+")
ROLE = re.compile(r":(?:class|func|meth|data|mod):<code>~?(?:[\w.]+\.(?=\w))?")
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', flags=re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages beside ``docs``, and a page for each source file that some page links to."""
    for name in PAGES:
        files.append(File.generated(config, name, content=(ROOT / name).read_text(encoding="utf-8")))
    linked = {target for page in files.documentation_pages() for target in _targets(page)}
    for target in sorted(linked - {place_in_repository(file.src_uri) for file in files}):
        text = (ROOT / target).read_text(encoding="utf-8")
        code = f"# {target}\n\n````{target.suffix.lstrip('.')}\n{text}\n````\n"
        name = place_on_site(target).as_posix()
        files.append(File.generated(config, name, content=code, inclusion=InclusionLevel.NOT_IN_NAV))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links towards their places on the site, and fenced formulas into the ones that the site knows."""
    here = place_in_repository(page.file.src_uri).parent

    def turned(link: re.Match[str]) -> str:
        target = PurePosixPath(normpath(here / link[0]))
        if not (ROOT / target).is_file():
            return link[0]
        return relpath(place_on_site(target), PurePosixPath(page.file.src_uri).parent)

    if page.file.src_uri.startswith("source/"):
        return markdown
    return re.sub(r"^```math\n(.*?)\n```$", r"$$\n\1\n$$", LINK.sub(turned, markdown), flags=re.DOTALL | re.MULTILINE)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Draw the formulas and drop the roles."""
    return FORMULA.sub(_drawn, ROLE.sub("<code>", html))


def place_in_repository(page: str) -> PurePosixPath:
    """Where a page of the site lies in the repository."""
    return PurePosixPath(page) if page in PAGES else PurePosixPath("docs", page)


def place_on_site(file: PurePosixPath) -> PurePosixPath:
    """Where a file of the repository is on the site."""
    if file.parts[0] == "docs":
        return file.relative_to("docs")
    return file if str(file) in PAGES else PurePosixPath("source", f"{file}.md")


def _targets(page: File) -> set[PurePosixPath]:
    """The files of the repository that a page links to."""
    here = place_in_repository(page.src_uri).parent
    links = [PurePosixPath(normpath(here / link)) for link in LINK.findall(page.content_string)]
    return {link for link in links if (ROOT / link).is_file()}


def _drawn(formula: re.Match[str]) -> str:
    return convert(unescape(formula[2]).strip(), display="inline" if formula[1] == "span" else "block")
