"""The command that records a teacher, for messages that advise it."""

from __future__ import annotations

from shlex import quote

__all__ = ["cache_command"]


def cache_command(
    teacher: str, imgsz: int, out: str, data: str = "DIR", dense: bool = False, maps: bool = False
) -> str:
    """The command that records a teacher at a size of images, as a shell takes it; ``maps`` adds feature maps.

    Examples:
        >>> from ladle.teachers.commands import cache_command
        >>> cache_command("my big.safetensors", 640, "big.jsonl")
        "ladle teacher cache 'my big.safetensors' --data DIR --imgsz 640 --out big.jsonl"
    """
    flags = " --dense" * dense + " --features" * maps
    return f"ladle teacher cache {quote(teacher)} --data {quote(data)} --imgsz {imgsz}{flags} --out {quote(out)}"
