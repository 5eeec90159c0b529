"""Training any network on any objective: recipes, run folders, exact resume.

The names below are imported when they are first used: reading a recipe does not load torch.
"""

import importlib
from typing import Any

_HOMES = {
    "Interrupted": "trainer",
    "Recipe": "recipes",
    "Run": "runs",
    "Trainer": "trainer",
    "average": "averaging",
    "read_recipe": "recipes",
    "resume": "experiment",
    "train": "experiment",
}

__all__ = sorted(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
