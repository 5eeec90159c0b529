"""The worker's end of the pipe: one JSON object a line in, one a line out.

Imported by the workers in their own environments, so it needs nothing but the standard library. Whatever a library
prints goes to stderr; between two requests the worker waits in a read and uses no processor.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

Handler = Callable[..., dict[str, Any]]


def serve(handlers: dict[str, Handler]) -> None:
    """Answer `{"ask": NAME, **arguments}` with what `handlers[NAME](**arguments)` returns, until the pipe closes."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    for line in sys.stdin:
        request = json.loads(line)
        answer = handlers[request.pop("ask")](**request)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
