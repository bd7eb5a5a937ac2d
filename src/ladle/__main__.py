"""``python -m ladle`` is ``ladle``."""

from __future__ import annotations

import sys

from ladle.cli.main import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
