"""Where the user's caches lie. Needs no torch."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """Return $JOINTGEN_CACHE, or else `jointgen` in the cache folder that this system gives the user."""
    if folder := os.environ.get("JOINTGEN_CACHE"):
        return Path(folder).expanduser()
    return platformdirs.user_cache_path("jointgen", appauthor=False)
