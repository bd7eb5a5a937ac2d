"""Methods are sums: ``LAD() + PKD(weight=2.0)``."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Joinable", "Method"]


class Joinable:
    """Base class of the parts of a method: ``a + b`` is the method with both parts.

    Examples:
        >>> from ladle.distillers import PKD, SoftLabels
        >>> len((PKD() + SoftLabels()).parts)
        2
    """

    def __add__(self, other: object) -> Method:
        return Method((*_parts(self), *_parts(other)))

    def __radd__(self, other: object) -> Method:
        return Method((*_parts(other), *_parts(self)))


@dataclass(frozen=True)
class Method(Joinable):
    """The parts of a method: whether the teacher assigns, and the distillers with their weights and schedules.

    Examples:
        >>> from ladle.distillers import PKD, SoftLabels
        >>> from ladle.methods import LAD
        >>> len((LAD(until=20) + SoftLabels() + PKD(weight=2.0)).parts)
        3
    """

    parts: tuple[object, ...] = ()


def _parts(value: object) -> tuple[object, ...]:
    return value.parts if isinstance(value, Method) else (value,)
