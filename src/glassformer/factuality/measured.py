"""`gf.uncertainty`: all scores of one answer beside each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Unpack

from glassformer.errors import InputError
from glassformer.factuality.attention_score import ATTENTION, attended
from glassformer.factuality.one_more_call import ONE_MORE_CALL, ask_again
from glassformer.factuality.records import Asked, Record, asked_ids, record
from glassformer.factuality.sampled import SAMPLED, Samples, draw
from glassformer.factuality.uncertainty import ONE_PASS, Passes, Score
from glassformer.interpret.tables import laid_out
from glassformer.tasks.generate import Settings
from glassformer.tasks.model import Model

_NEEDS_EMBEDDINGS = "embedding consistency"


@dataclass(frozen=True)
class Measured:
    """The value of one score, higher = more uncertain; not a probability. A `paper` of "" marks a baseline."""

    name: str
    value: float
    passes: Passes
    paper: str


@dataclass(frozen=True, eq=False)
class Uncertainty:
    """One answer with all scores of it; `print` shows the table. `samples` are the texts that were drawn beside it."""

    record: Record
    scores: tuple[Measured, ...]
    samples: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> float:
        for one in self.scores:
            if one.name == name:
                return one.value
        raise InputError(f"there is no score '{name}' here; there are {', '.join(one.name for one in self.scores)}.")

    def table(self) -> str:
        """The scores as lines of text, with what each costs and who proposed it."""
        rows = [("score", "value", "cost", "paper")]
        for one in self.scores:
            rows.append((one.name, f"{one.value:.4f}", one.passes, one.paper.split(",")[0] or "baseline"))
        return laid_out(rows)

    def to_json(self) -> dict[str, Any]:
        """What `json.dumps` takes: the text, its tokens with what the model knew of each, and the scores."""
        told = zip(self.record.ids, self.record.logprobs, self.record.entropies, self.record.margins, strict=True)
        names = ("id", "logprob", "entropy", "margin")
        tokens = [dict(zip(names, token, strict=True)) for token in told]
        scores = [asdict(one) for one in self.scores]
        return {"text": self.record.text, "tokens": tokens, "scores": scores, "samples": list(self.samples)}

    def __str__(self) -> str:
        return f"{self.record.text.strip()}\n{self.table()}"


def uncertainty(
    model: Model,
    prompt: Asked,
    *,
    samples: int = 0,
    embedder: Model | None = None,
    question: str | None = None,
    drawn_at: float = 1.0,
    **settings: Unpack[Settings],
) -> Uncertainty:
    """Answer a prompt (text, ids, or a conversation) greedily, and say by every score how uncertain the answer is.

    With `samples` so many other answers are drawn, at the temperature `drawn_at`, and compared; `embedder` (such as
    `gf.load("all-minilm-l6-v2")`) then says which mean the same, beside equal ones. P(True) asks about `question`: by
    default the prompt's text, or the last message. Other settings are those of `Model.generate`. No score is a
    probability of being wrong; `Calibration` makes one of it.

    Raises `InputError` as `record` and `draw` do.
    """
    answer = record(model, [prompt], **settings)[0]
    scores = _measured(ONE_PASS, answer) + _measured(ATTENTION, attended(model, [answer])[0])
    asked = _question(model, prompt) if question is None else question
    scores += _measured(ONE_MORE_CALL, ask_again(model, [answer], [asked])[0])
    drawn: Samples | None = None
    if samples:
        wanted = settings | Settings(temperature=drawn_at)
        drawn = draw(model, [answer], samples, embedder=embedder, **wanted)[0]
        left_out = () if embedder is not None else (_NEEDS_EMBEDDINGS,)
        scores += _measured({name: score for name, score in SAMPLED.items() if name not in left_out}, drawn)
    return Uncertainty(answer, tuple(scores), tuple(drawn.texts) if drawn else ())


def _measured(scores: Mapping[str, Score], of: Any) -> list[Measured]:
    return [Measured(one.name, one.function(of), one.passes, one.paper) for one in scores.values()]


def _question(model: Model, prompt: Asked) -> str:
    if isinstance(prompt, str):
        return prompt
    last = prompt[-1] if isinstance(prompt, Sequence) and len(prompt) else None
    if isinstance(last, Mapping):
        return str(last.get("content", ""))
    return model.tokenizer.decode(asked_ids(model, [prompt])[0])
