"""Locate the image files that an annotation file or a list names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ladle.data.folders import images_of, list_folder
from ladle.data.images import locate
from ladle.errors import UserError

__all__ = ["Finder", "find_root"]

_PROBES = 20
_MOST_DROPPED = 4
_MOST_SEARCHED = 500_000
_LONGEST_NAME = 1000


@dataclass(frozen=True)
class Finder:
    """Finds files by the names in annotations: below ``root``, without the first ``dropped`` folders of the name.

    With ``index``, a mapping from file names to paths, all folders of the name are ignored.
    """

    root: Path
    dropped: int = 0
    index: dict[str, list[Path]] | None = None

    def find(self, name: str) -> Path:
        """The file with this name; raises UserError if there is none or several, or if it is outside ``root``."""
        if len(name) > _LONGEST_NAME:
            raise UserError(f"{name[:40]}…: expected a file name, found one of {len(name)} characters")
        if self.index is None:
            return locate(self.root, _without(name, self.dropped))
        found = _alike(name, self.index.get(_parts(name)[-1], [])) if _parts(name) else []
        if len(found) > 1:
            places = " and ".join(path.relative_to(self.root).as_posix() for path in found[:2])
            raise UserError(f"{name}: expected one image of this name below {self.root}, found {places}")
        return found[0] if found else locate(self.root, name)

    @property
    def note(self) -> str:
        """A note for the user on how files are found; empty if they are found as named."""
        if self.index is not None:
            return f"images were found by their names alone, in the folders below {self.root}"
        what = "the first folder" if self.dropped == 1 else f"the first {self.dropped} folders"
        return f"{what} of the file names was passed over, to find them below {self.root}" if self.dropped else ""


def find_root(roots: Sequence[Path], names: Sequence[str], below: Path | None = None) -> Finder:
    """The finder that finds most of the first twenty names; on a tie the first.

    The names are tried below each of ``roots``. If most are not found, they are tried without their first folder,
    without the first two, and so on; then by file name alone anywhere ``below``.
    """
    probes = list(names[:_PROBES])
    places = [root for root in roots if root.is_dir()]
    plain, most = _best([Finder(root) for root in places], probes)
    for dropped in range(1, _MOST_DROPPED + 1):
        if 2 * most >= len(probes):
            return plain
        shorter, hits = _best([Finder(root, dropped) for root in places], probes)
        if 2 * hits > len(probes):
            return shorter
    anywhere = Finder(below, index=_index(below)) if below is not None and below.is_dir() else plain
    return anywhere if 2 * _hits(anywhere, probes) > len(probes) else plain


def _index(folder: Path) -> dict[str, list[Path]]:
    index: dict[str, list[Path]] = defaultdict(list)
    try:
        files = list_folder(folder, _MOST_SEARCHED).files
    except UserError:  # a folder that cannot be searched holds nothing that can be found
        return {}
    for file in images_of(files):
        index[file.name].append(file)
    return dict(index)


def _best(finders: Sequence[Finder], names: Sequence[str]) -> tuple[Finder, int]:
    hits = [_hits(finder, names) for finder in finders]
    return finders[hits.index(max(hits))], max(hits)


def _hits(finder: Finder, names: Sequence[str]) -> int:
    return sum(_finds(finder, name) for name in names)


def _finds(finder: Finder, name: str) -> bool:
    try:
        return finder.find(name).is_file()
    except (UserError, OSError):
        return False


def _parts(name: str) -> tuple[str, ...]:
    return PurePosixPath(name.replace("\\", "/")).parts


def _without(name: str, folders: int) -> str:
    """The name without its first folders; absolute names and names with ``..`` are unchanged and refused later."""
    parts = _parts(name)
    if not folders or not parts or ".." in parts or name.startswith(("/", "\\")) or ":" in parts[0]:
        return name
    return "/".join(parts[min(folders, len(parts) - 1) :])


def _alike(name: str, candidates: list[Path]) -> list[Path]:
    """The candidates whose last folders agree with most of the last folders of the name."""
    reversed_name = _parts(name)[::-1]
    if ".." in reversed_name or name.startswith(("/", "\\")) or ":" in reversed_name[-1]:
        return []
    agreement = [_common(reversed_name, candidate.parts[::-1]) for candidate in candidates]
    return [path for path, common in zip(candidates, agreement, strict=True) if common == max(agreement)]


def _common(first: Sequence[str], second: Sequence[str]) -> int:
    return next(
        (n for n, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second))
    )
