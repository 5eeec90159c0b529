"""How a run was started: what `run.json` says of it."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy
import safetensors
import tokenizers
import torch

from glassformer.checkpoints.native import package_version


def origin(data_root: str | Path | None) -> dict[str, Any]:
    """Command, time, data root, commit, versions and machine."""
    root = data_root or os.environ.get("GLASSFORMER_DATA")
    return {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "data_root": os.path.abspath(root) if root else None,
        "git_commit": _git_commit(),
        "versions": {
            "glassformer": package_version(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": numpy.__version__,
            "tokenizers": tokenizers.__version__,
            "safetensors": safetensors.__version__,
        },
        "machine": f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} threads",
    }


def _git_commit() -> str | None:
    """The commit of the source tree this runs from, with "+changes" where it is not clean; None outside a tree."""
    here = Path(__file__).resolve().parent

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    if not commit or git("ls-files", "--error-unmatch", __file__) is None:
        return None
    return commit + ("+changes" if git("status", "--porcelain", "--untracked-files=no") else "")
