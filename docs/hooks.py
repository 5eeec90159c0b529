"""What MkDocs calls while it builds the site: the pages' code finds `pictures`, and runs on one thread."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any


def on_startup(**_: Any) -> None:
    """Before anything is read."""
    sys.path.insert(0, str(Path(__file__).parent))
    import torch

    torch.set_num_threads(1)
