"""Two streams: data on stdout, messages on stderr."""

from __future__ import annotations

import json
import math
import sys
import unicodedata
from typing import Any


def put(line: str) -> None:
    """A line of data, on stdout."""
    print(line, flush=True)


def put_json(record: Any) -> None:
    """A record on one line of stdout."""
    put(json.dumps(record, ensure_ascii=False))


def put_part(text: str) -> None:
    """A part of a text that is still being written, on stdout, at once."""
    sys.stdout.write(visible(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def say(line: str = "") -> None:
    """A message for people, on stderr."""
    print(line, file=sys.stderr, flush=True)


def visible(text: str) -> str:
    """The text without control characters but newlines and tabs: a model may write what a terminal would obey."""
    return "".join(c if c in "\n\t" or unicodedata.category(c) != "Cc" else "\ufffd" for c in text)


def percent(share: float) -> str:
    """`0.9967` → `"99.6 %"`: rounded down, so that only all is 100."""
    return f"{math.floor(1000 * share + 1e-9) / 10:.1f} %"


def size(n_bytes: float) -> str:
    """`538060032` → `"538.1 MB"`: powers of a thousand, as disks and transfers are measured."""
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} B" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} TB"
