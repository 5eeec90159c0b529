"""The models that a server has, each with what answers for it; they are named at the start, and never by a request."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from glassformer.errors import InputError
from glassformer.factuality.calibration import Calibration
from glassformer.factuality.retrieval import Index
from glassformer.models.config import Classification, MaskedLM, Sentence, Spans
from glassformer.models.decoder import Decoder
from glassformer.models.encoder import Encoder
from glassformer.models.families import TextToText
from glassformer.serving.admission import memory_share
from glassformer.serving.api.errors import ApiError, unknown_name
from glassformer.serving.api.limits import Limits
from glassformer.serving.api.spelling import Spelled
from glassformer.serving.api.work import Work
from glassformer.serving.batching import Batching
from glassformer.serving.passes import Passes
from glassformer.serving.readings import family
from glassformer.serving.views import VIEWS
from glassformer.tasks.model import Model

_OF_HEAD: dict[type, str] = {
    Sentence: "embeddings",
    MaskedLM: "fill",
    Classification: "classify",
    Spans: "answer",
}


@dataclass(frozen=True)
class Served:
    """A model under its name; `batching` answers for one that goes on from texts, `passes` are of those that were
    traced."""

    name: str
    model: Model
    batching: Batching | None
    created: int
    passes: Passes

    @cached_property
    def spelled(self) -> Spelled:
        """How its tokens are told."""
        return Spelled(self.model.tokenizer)

    @cached_property
    def can(self) -> tuple[str, ...]:
        """The endpoints that it can be asked at, beside those that all models have."""
        network = self.model.network
        if isinstance(network, Decoder):
            return ("completions", *(("chat",) if self.model.pipeline.chat_template else ()), "ask")
        if isinstance(network, Encoder):
            kind = type(self.model.config.head or MaskedLM())
            return (_OF_HEAD[kind],) if kind in _OF_HEAD else ()
        return ("translate",) if isinstance(network, TextToText) else ()

    def need(self, verb: str) -> Model:
        """The model. A 400 where it cannot do this."""
        if verb not in self.can:
            what = "it has no chat template" if verb == "chat" and self.batching else f"it is {self.model.purpose}"
            message = f"the model '{self.name}' cannot do this ({verb}): {what}."
            raise ApiError(400, message, param="model", code="unsupported_model")
        return self.model

    def about(self) -> dict[str, Any]:
        """What /v1/models says of it: OpenAI's four, then our own."""
        return {
            "id": self.name,
            "object": "model",
            "created": self.created,
            "owned_by": "glassformer",
            "family": family(self.model),
            "shape": self.model.config.shape,
            "positions": self.model.config.max_length,
            "can": list(self.can),
            "views": list(VIEWS),
        }


@dataclass(frozen=True)
class Grounds:
    """What `ask` may use beside a model: documents with the `reader` that finds answers in them, and the calibration
    of the model that is named `calibrated`."""

    documents: Index | None = None
    reader: Model | None = None
    risk: Calibration | None = None
    calibrated: str = ""


@dataclass
class Service:
    """All that requests are answered with. `close` ends it in good order."""

    models: Mapping[str, Model]
    limits: Limits = field(default_factory=Limits)
    grounds: Grounds = field(default_factory=Grounds)
    stopping: bool = False

    def __post_init__(self) -> None:
        if not self.models:
            raise InputError("a server needs at least one model: --model NAME.")
        now = int(time.time())
        self.all = {name: self._served(name, model, now) for name, model in self.models.items()}
        self.work = Work(self.limits.workers, self.limits.worker_queue)

    def _served(self, name: str, model: Model, now: int) -> Served:
        batching = None
        if isinstance(model.network, Decoder):
            limits, memory = self.limits, self._memory(model)
            batching = Batching(model, streams=limits.streams, queue=limits.queue, memory=memory)
        return Served(name, model, batching, now, Passes(model))

    def _memory(self, model: Model) -> int:
        """Bytes for the keys and values of one of the models that generate."""
        among = sum(isinstance(each.network, Decoder) for each in self.models.values())
        return self.limits.memory // among if self.limits.memory else memory_share(among, model.device)

    def of(self, name: str | None) -> Served:
        """The model of this name, the first one without a name. A 404 where there is none, a 503 when stopping."""
        if self.stopping:
            raise ApiError(503, "the server is stopping.", code="stopping", headers={"Retry-After": "30"})
        if name is None:
            return next(iter(self.all.values()))
        if name not in self.all:
            raise unknown_name("model", name, list(self.all), param="model", code="model_not_found")
        return self.all[name]

    @property
    def well(self) -> bool:
        """Whether it answers."""
        batchings = [served.batching for served in self.all.values() if served.batching]
        return not self.stopping and all(batching.figures.alive for batching in batchings)

    def close(self, finish: float = 30.0) -> None:
        """No new requests; answers that are being given end within `finish` seconds."""
        self.stopping = True
        ending = [
            threading.Thread(target=served.batching.close, args=(finish,))
            for served in self.all.values()
            if served.batching
        ]
        for thread in ending:
            thread.start()
        for thread in ending:
            thread.join()
        self.work.close()
