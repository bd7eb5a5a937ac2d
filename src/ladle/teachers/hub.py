"""Checkpoints in the local cache of the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

__all__ = ["cached_file", "snapshot_of"]


def cached_file(name: str, *files: str) -> Path | None:
    """The first of some files that the cache holds for a name such as ``org/name``; nothing is downloaded."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = [try_to_load_from_cache(name, file) for file in files]
    except HFValidationError:
        return None
    return next((Path(one) for one in found if isinstance(one, str)), None)


def snapshot_of(name: str) -> Path | None:
    """The folder of a checkpoint in the cache; None if there is none."""
    config = cached_file(name, "config.json")
    return None if config is None else config.parent
