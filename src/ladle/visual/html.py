"""Pages of HTML that need nothing else: one file with its style and images in it, no script and no network.

They are readable on a phone and on a screen, in light and dark. Every text is escaped here, so that no name of a class
or of a file is read as markup.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from ladle.files import write_text
from ladle.names import printable

__all__ = [
    "Html",
    "beside",
    "bullets",
    "code",
    "escaped",
    "figure",
    "heading",
    "links",
    "matrix",
    "paragraph",
    "section",
    "table",
    "write_page",
]


class Html(str):
    """A piece of a page; every other text is escaped before it becomes one."""

    __slots__ = ()


_STYLE = """
:root { color-scheme: light dark; --ink: #1a1c20; --muted: #59606c; --line: #d9dce1; --paper: #fff; --card: #f5f6f8;
  --c0: #0072b2; --c1: #d55e00; --c2: #009e73; --c3: #b0568a; --c4: #a87500; --c5: #3a94cf; --c6: #882255;
  --c7: #332288; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8eaed; --muted: #a3a9b4; --line: #3b3f46; --paper: #16181c; --card: #202328;
    --c0: #56b4e9; --c1: #ff8f45; --c2: #2fc79b; --c3: #e39bc4; --c4: #f0b429; --c5: #9ad0f5; --c6: #e07a9e;
    --c7: #a99cf0; }
}
.c0 { color: var(--c0); } .c1 { color: var(--c1); } .c2 { color: var(--c2); } .c3 { color: var(--c3); }
.c4 { color: var(--c4); } .c5 { color: var(--c5); } .c6 { color: var(--c6); } .c7 { color: var(--c7); }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0.5rem 0; }
h2 { font-size: 1.15rem; margin: 1.75rem 0 0.5rem; overflow-wrap: anywhere; }
p, li { max-width: 48rem; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.875rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--muted); padding: 0.25rem 0; }
th, td { padding: 0.25rem 0.75rem 0.25rem 0; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; }
td.n, th.n { text-align: right; }
figure { margin: 0 0 0.75rem; }
figure img { display: block; max-width: 100%; height: auto; background: #fff; border-radius: 4px; }
figcaption { color: var(--muted); font-size: 0.875rem; overflow-wrap: anywhere; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 0.75rem 1rem;
  margin: 0 0 1rem; }
section h2 { margin-top: 0; }
pre { overflow-x: auto; white-space: pre-wrap; overflow-wrap: anywhere; background: var(--card);
  padding: 0.5rem 0.75rem; border: 1px solid var(--line); border-radius: 4px; font-size: 0.875rem; }
.beside { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(20rem, 100%), 1fr)); gap: 0.75rem 1.5rem; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--muted); font: 12px system-ui, sans-serif; }
svg .grid { stroke: var(--line); }
svg .line { fill: none; stroke: currentColor; stroke-width: 2; stroke-linejoin: round; }
svg .dot, svg .bar { fill: currentColor; }
.chart figcaption { color: inherit; font-weight: 600; }
.key { list-style: none; margin: 0.25rem 0 0; padding: 0; display: flex; flex-wrap: wrap; gap: 0 1rem;
  font-size: 0.875rem; }
.key li { overflow-wrap: anywhere; }
.swatch { display: inline-block; width: 1.5rem; height: 0.25rem; margin: 0 0.4rem 0.2rem 0; }
td.share { text-align: right; background: color-mix(in srgb, var(--c0) calc(var(--share) * 55%), transparent); }
@media print {
  body { max-width: none; padding: 0; }
  figure, section, tr { break-inside: avoid; }
  h2 { break-after: avoid; }
  .scroll { overflow-x: visible; }
}
nav { margin: 1rem 0; display: flex; flex-wrap: wrap; gap: 0.25rem 1rem; }
a { color: inherit; }
"""


def heading(text: str) -> Html:
    """A heading below the title of the page."""
    return Html(f"<h2>{escaped(text)}</h2>")


def paragraph(text: str) -> Html:
    """A paragraph."""
    return Html(f"<p>{escaped(text)}</p>")


def bullets(lines: Sequence[str]) -> Html:
    """A list; nothing where there are no lines."""
    items = "".join(f"<li>{escaped(line)}</li>" for line in lines)
    return Html(f"<ul>{items}</ul>" if lines else "")


def table(rows: Sequence[Mapping[str, object]], caption: str = "") -> Html:
    """A table of rows that share their keys, which scrolls where the page is narrow; numbers stand at the right."""
    if not rows:
        return Html("")
    numeric = [isinstance(value, int | float) for value in rows[0].values()]
    kinds = [' class="n"' if one else "" for one in numeric]
    head = "".join(f'<th scope="col"{kind}>{escaped(name)}</th>' for name, kind in zip(rows[0], kinds, strict=True))
    lines = [
        "".join(f"<td{kind}>{escaped(_cell(value))}</td>" for value, kind in zip(row.values(), kinds, strict=True))
        for row in rows
    ]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    named = f"<caption>{escaped(caption)}</caption>" if caption else ""
    return Html(f'<div class="scroll"><table>{named}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>')


def figure(image: bytes, alt: str, caption: str = "", kind: str = "jpeg") -> Html:
    """An image, held by the page itself, with what it shows in words; ``kind`` is ``jpeg`` or ``png``."""
    data = b64encode(image).decode("ascii")
    shown = f'<img src="data:image/{kind};base64,{data}" alt="{escaped(alt)}" loading="lazy">'
    return Html(f"<figure>{shown}<figcaption>{escaped(caption)}</figcaption></figure>")


def code(text: str) -> Html:
    """Text as it is typed, such as a command."""
    return Html(f"<pre>{escaped(text)}</pre>")


def beside(parts: Sequence[Html]) -> Html:
    """Parts side by side, as many as there is room for; empty ones are left out."""
    return Html(f'<div class="beside">{"".join(parts)}</div>' if any(parts) else "")


def matrix(rows: Mapping[str, Sequence[float]], columns: Sequence[str], corner: str, caption: str = "") -> Html:
    """A table of shares from 0 to 1 as whole percent, the darker the larger; cells of 0 are empty.

    ``rows`` are named at the left, ``corner`` is what they are.
    """
    head = "".join(f'<th scope="col" class="n">{escaped(name)}</th>' for name in columns)
    body = "".join(
        f'<tr><th scope="row">{escaped(name)}</th>{"".join(map(_share_cell, shares))}</tr>'
        for name, shares in rows.items()
    )
    return Html(
        f'<div class="scroll"><table><caption>{escaped(caption)}</caption><thead><tr><th scope="col">{escaped(corner)}'
        f"</th>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def section(*parts: Html) -> Html:
    """Parts that belong together, in a frame."""
    return Html(f"<section>{''.join(parts)}</section>")


def links(pages: Mapping[str, str], here: str) -> Html:
    """Links to the files of other pages by their titles; ``here`` is the title of this one."""
    shown = [
        f'<b aria-current="page">{escaped(title)}</b>'
        if title == here
        else f'<a href="{escaped(file)}">{escaped(title)}</a>'
        for title, file in pages.items()
    ]
    return Html(f"<nav>{''.join(shown)}</nav>" if len(pages) > 1 else "")


def write_page(path: Path, title: str, parts: Sequence[Html]) -> Path:
    """Write a page, whole or not at all.

    Examples:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from ladle.visual.html import paragraph, write_page
        >>> with TemporaryDirectory() as folder:
        ...     page = write_page(Path(folder) / "page.html", "Title", [paragraph("1 < 2")])
        ...     "<p>1 &lt; 2</p>" in page.read_text(encoding="utf-8")
        True
    """
    name = escaped(title)
    text = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{name}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{name}</h1>\n"
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text, only_changes=True)
    return path


def _share_cell(share: float) -> str:
    shown = "" if not share else "<1" if share < 0.005 else f"{100 * share:.0f}"
    return f'<td class="share" style="--share: {share:.3f}">{escaped(shown)}</td>'


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "–" if value != value else f"{value:.1f}"
    return "–" if value is None else str(value)


def escaped(text: str) -> str:
    """The text as markup that shows it, with what cannot be printed as escapes; every text of a page passes here."""
    return escape(printable(text))
