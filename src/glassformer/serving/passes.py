"""One forward pass of a text for all views that need what passes in it; the last few are kept."""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from concurrent.futures import Future
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from glassformer.layers.sites import sites
from glassformer.models.encoder import Encoder
from glassformer.serving.readings import Reading, reading, seen
from glassformer.tasks.model import Model

LOGITS = "logits @ *"


@dataclass(frozen=True)
class Pass:
    """What a network read, and what passed meanwhile: `patterns` of each attention by its site, and the `logits` at all
    positions; None of an encoder, which is asked for its words otherwise (`serving.surprisal`)."""

    reading: Reading
    patterns: dict[str, Float[Tensor, "L H Q K"]]
    logits: Float[Tensor, "T V"] | None


class Passes:
    """The passes of one model, whose weights must stay as they are. Threads may ask at once: of those that ask for the
    same text one computes, and the others wait for it. `most` passes are kept, the latest."""

    def __init__(self, model: Model, most: int = 2) -> None:
        self._model, self._most = model, most
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, str | None], Future[Pass]] = OrderedDict()

    def of(self, text: str, target: str | None = None) -> Pass:
        """The pass of a text; `target` as in `readings.reading`, whose `InputError`s it raises."""
        with self._lock:
            known = self._kept.get((text, target))
            future = self._kept.setdefault((text, target), Future())
            self._kept.move_to_end((text, target))
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
        if known is None:
            self._compute(future, text, target)
        return future.result()

    def _compute(self, future: Future[Pass], text: str, target: str | None) -> None:
        try:
            future.set_result(one_pass(self._model, text, target))
        except BaseException as error:  # whoever waits must hear of it
            with self._lock:
                if self._kept.get((text, target)) is future:
                    del self._kept[text, target]
            future.set_exception(error)


def one_pass(model: Model, text: str, target: str | None = None) -> Pass:
    """Let the model read a text, once. Raises `InputError` as `readings.reading` does."""
    given, network = reading(model, text, target), model.network
    every = (re.sub(r"\[\d+\]", "[*]", name) for name in sites(network) if "attention.pattern" in name)
    places = list(dict.fromkeys(every))
    says = not isinstance(network, Encoder)
    kept = seen(network, given, *places, *([LOGITS] if says else []))
    patterns = {kept.kept[place].site: kept.stack(place)[:, 0].float().cpu() for place in places}
    return Pass(given, patterns, kept[LOGITS][0].float().cpu() if says else None)
