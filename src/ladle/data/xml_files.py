"""XML files from untrusted sources: limited in size and depth, without entities or external references."""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element, ParseError, TreeBuilder

from ladle.errors import UserError
from ladle.files import read_regular

__all__ = ["read_xml"]

_MOST_BYTES = 2**24
_MOST_DEPTH = 32
_MOST_ATTRIBUTES = 100
_MOST_ELEMENTS = 500_000


class _Bounded(TreeBuilder):
    """Builds a tree of limited size and depth."""

    def __init__(self) -> None:
        super().__init__()
        self.depth = self.elements = 0

    def start(self, tag: str, attrs: dict[str, str]) -> Element:
        self.depth += 1
        self.elements += 1
        if self.depth > _MOST_DEPTH:
            raise ValueError(f"elements nested more than {_MOST_DEPTH} deep")
        if len(attrs) > _MOST_ATTRIBUTES or self.elements > _MOST_ELEMENTS:
            raise ValueError("far too many elements or attributes")
        return super().start(tag, attrs)

    def end(self, tag: str) -> Element:
        self.depth -= 1
        return super().end(tag)


def read_xml(file: Path) -> Element:
    """The root element of an XML file; raises UserError with the name of the file if it is not plain XML."""
    from defusedxml.ElementTree import DefusedXMLParser

    content = read_regular(file, _MOST_BYTES)
    try:
        parser = DefusedXMLParser(target=_Bounded())
        parser.feed(content)
        root: Element = parser.close()
    except (ParseError, ValueError, LookupError, TypeError) as error:  # defusedxml's refusals are ValueErrors
        reason = " ".join(str(error).split())
        raise UserError(
            f"{file}: expected XML that can be read and that declares no entities, found {reason}"
        ) from error
    return root
