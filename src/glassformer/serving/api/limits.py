"""What one server and one request may take at most."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from glassformer.errors import InputError


@dataclass(frozen=True)
class Limits:
    """`body_bytes` of a request, read within `body_seconds`; `prompt_tokens` (0: the model's positions) and
    `new_tokens` of a text; `texts` of a request: its prompts times `n`; `seconds` that an answer may take.

    `streams` texts are generated at once and `queue` more wait, for each model; the keys and values of those that are
    generated have `memory` bytes, all models together (0: a third of what is free when the server starts). What is no
    generation (vectors, views, answers from documents) is done by `workers` threads, and `worker_queue` more requests
    wait for them.
    """

    body_bytes: int = 2 * 2**20
    body_seconds: float = 30.0
    prompt_tokens: int = 0
    new_tokens: int = 4096
    texts: int = 128
    seconds: float = 600.0
    streams: int = 16
    queue: int = 64
    memory: int = 0
    workers: int = 2
    worker_queue: int = 16

    def __post_init__(self) -> None:
        for field in fields(self):
            least = 0 if field.name in ("prompt_tokens", "queue", "memory", "worker_queue") else 1
            value = getattr(self, field.name)
            if not least <= value < math.inf:  # nor no number
                raise InputError(f"'{field.name}' must be a number from {least}, got {value}.")
