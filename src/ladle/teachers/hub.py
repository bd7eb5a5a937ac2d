"""Checkpoints in the local cache of the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

__all__ = ["snapshot_of"]


def snapshot_of(name: str) -> Path | None:
    """The folder that the cache holds for a name such as ``org/name``; None if there is none. Nothing is downloaded."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, "config.json")
    except HFValidationError:
        return None
    return Path(found).parent if isinstance(found, str) else None
