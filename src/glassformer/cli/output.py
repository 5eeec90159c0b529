"""Two streams: data on stdout, messages on stderr."""

from __future__ import annotations

import json
import math
import sys
from typing import Any


def put(line: str) -> None:
    """A line of data, on stdout."""
    print(line, flush=True)


def put_json(record: Any) -> None:
    """A record on one line of stdout."""
    put(json.dumps(record, ensure_ascii=False))


def say(line: str = "") -> None:
    """A message for people, on stderr."""
    print(line, file=sys.stderr, flush=True)


def percent(share: float) -> str:
    """`0.9967` → `"99.6 %"`: rounded down, so that only all is 100."""
    return f"{math.floor(1000 * share + 1e-9) / 10:.1f} %"
