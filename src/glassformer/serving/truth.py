"""The view "truth": where a model was unsure of what it says, and what documents say to it.

`"truth"` judges a `statement`: what the model writes after a text or in answer to it, or a text that is given. It has

    asked: the text that was answered, where the statement does not begin with it; else ""
    whose: who wrote the statement, in words
    begins: the character of the statement at which its `tokens` begin; what stands before was given
    tokens [n]: `text`, `probability` and `entropy` (in nats) of each, as the model gave them; none where it gave none
    levels: `least`, the least probability of a level, and its `name`, from the surest on
    risk: the probability that the answer is wrong, by a calibration, or null; `risk_says` the same in words
    checked: in words, what the spans were checked against, or why they were not
    spans: the statement's numbers, dates and names; `sentences`: whole sentences, judged by their values
    verdicts: each verdict's name and what it means, in words

A span or sentence has its `text`, `start` and `end` in the statement, `kind`, `verdict` ("supported", "contradicted",
"not found" or "not checked"), `says`, the verdict in words, `found`, what the documents have instead, and `evidence`,
the best first: `quote`, the `document`'s name within the folder that holds all of them, `start` and `end` there, and
`answer`, [start, end) within the quote, or null. Places are characters (code points).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from glassformer.errors import InputError
from glassformer.factuality import calibration
from glassformer.factuality.asking import Texts, Token, ask, index_of, tokens_of
from glassformer.factuality.calibration import Asking, Calibration
from glassformer.factuality.claims import claims_of
from glassformer.factuality.grounding import COUNT, READER, Evidence
from glassformer.factuality.labelling import prompt_ids_of
from glassformer.factuality.prompts import STOP, relation_of
from glassformer.factuality.questions import Question
from glassformer.factuality.records import record, record_answers
from glassformer.factuality.retrieval import Index
from glassformer.factuality.uncertainty import ONE_PASS
from glassformer.factuality.verifying import Checked, Verifier
from glassformer.factuality.writing import Checker
from glassformer.models.decoder import Decoder
from glassformer.models.families import TEXT_TO_TEXT
from glassformer.serving.documents import DIGITS, Document, headed
from glassformer.serving.readings import Spelling, reading
from glassformer.tasks.inputs import text_ids
from glassformer.tasks.model import Model

LEVELS = ((0.5, "sure"), (0.2, "less sure"), (0.05, "unsure"), (0.0, "very unsure"))
"""From which probability on a token is how sure: those of `glassformer ask`."""

MOST_NEW_TOKENS = 48
"""So many tokens does a model write."""

VERDICTS = {
    "supported": "the documents say so",
    "contradicted": "the documents say something else",
    "not found": "no evidence found",
    "not checked": "not checked",
}

_NO_WORDS = "this model writes nothing of its own, and there are no documents to check the text against"
_NO_DOCUMENTS = "Not checked: no documents were given (--documents). Shades alone say where the model was unsure."
_TRANSLATED = "Not checked: a translation is true to its source or not, and documents do not say which."


@dataclass(frozen=True)
class _Said:
    """What is judged: `statement` from the character `begins` on is made of `tokens`."""

    statement: str
    whose: str
    asked: str = ""
    begins: int = 0
    tokens: tuple[Token, ...] = ()
    risk: float | None = None
    risk_says: str = "No risk: the model does not say how probable its words are."
    unchecked: str = _NO_DOCUMENTS
    found: tuple[Checked, ...] = field(default=())


def truth_document(
    model: Model,
    text: str,
    target: str | None = None,
    *,
    documents: Texts | None = None,
    risk: Calibration | str | Path | None = None,
    reader: Model | str = READER,
) -> Document:
    """How sure a model was of each token that it says, and what `documents` say to its numbers, dates and names.

    A decoder goes on from the text, or answers it where that is a question, the model converses, or a calibration says
    how it is asked; with a `target`, that is judged as if the model had written it. An encoder-decoder translates. An
    encoder writes nothing: the text itself is checked. `risk` is a calibration of this model, or its file; `reader`
    what finds values in passages.

    Raises `InputError` as `readings.reading`, `asking.ask` and `verifying.Verifier`.
    """
    if isinstance(model.network, Decoder):
        said = _of_decoder(model, text, target, risk)
    elif risk is not None:
        raise InputError("a risk is of the answers of a decoder; this model is of another kind. Leave it out.")
    elif isinstance(model.network, TEXT_TO_TEXT):
        return headed(model, text, _described(_of_translator(model, text, target), ()))
    elif documents is None:
        return headed(model, text, {"view": "truth", "missing": f"{_NO_WORDS}."})
    else:
        reading(model, text, target)
        said = _Said(text, "the text that was given", risk_says="No risk: the model did not write this.")
    if documents is None:
        return headed(model, text, _described(said, _unchecked(said)))
    index = index_of(documents)
    told = {**_described(said, _checks(said, index, reader)), "checked": f"Checked against {_counted(index)}."}
    return headed(model, text, told)


def _counted(index: Index) -> str:
    count = len({passage.document.name for passage in index.passages})
    return f"{count} document" if count == 1 else f"{count} documents"


# --- What is said -----------------------------------------------------------------------------------------------------


def _of_decoder(model: Model, text: str, target: str | None, risk: Calibration | str | Path | None) -> _Said:
    reading(model, text)  # what it refuses, the other views of the page refuse as well
    known = calibration.load(risk, model) if isinstance(risk, str | Path) else risk
    converses = bool(model.pipeline.chat_template)
    apart = converses or known is not None or text.rstrip().endswith("?")
    if target is not None:
        tokens, probability = _judged(model, text, target, known, apart)
    elif apart:
        reply = ask(model, text, risk=known, max_new_tokens=_most_new(model))
        tokens, probability = reply.tokens, reply.risk
    else:
        (one,) = record(model, [text], max_new_tokens=_most_new(model), stop=STOP)
        tokens, probability = tokens_of(model, one), None
    kind = "answer" if apart else "continuation"
    whose = f"the model’s own {kind}" if target is None else f"the {kind} that was given, judged by the model"
    before, asked = ("", text) if apart else (text, "")
    answer = "".join(token.text for token in tokens)
    return _Said(before + answer, whose, asked, len(before), tokens, probability, _risk_in_words(probability))


def _most_new(model: Model) -> int:
    return min(MOST_NEW_TOKENS, model.config.max_length // 2)


def _risk_in_words(risk: float | None) -> str:
    if risk is None:
        return "How often such answers are wrong, only a calibration says (--risk)."
    return f"Of answers like this, asked like this, {100 * risk:.0f} % are wrong by the calibration."


def _judged(
    model: Model, text: str, answer: str, known: Calibration | None, apart: bool
) -> tuple[tuple[Token, ...], float | None]:
    """The tokens of an answer that is given, as the model would have written them, and its risk."""
    asking = Asking("bare") if known is None else known.asking
    question = Question("question 1", text, (), relation=relation_of(text, asking.shots))
    prompt = prompt_ids_of(model, question, asking) if apart else text_ids(model, [text])[0]
    parted = bool(model.pipeline.chat_template) or answer[:1].isspace() or (not apart and text[-1:].isspace())
    (one,) = record_answers(model, [prompt], [answer if parted else f" {answer}"])
    scores = {name: score.function(one) for name, score in ONE_PASS.items()}
    risk = None if known is None else known.probability(scores, question.relation, one.text.strip())
    return tokens_of(model, one), risk


@torch.no_grad()
def _of_translator(model: Model, text: str, target: str | None) -> _Said:
    """A translation's tokens, spelled one by one: how they are put together is not always told by themselves."""
    given = reading(model, text, target)
    (source, read) = given.inputs(model.network).arguments(slice(0, 1))
    logprobs = model.network(source, read).logits[0].float().log_softmax(-1).cpu()
    entropies = -(logprobs.exp() * logprobs.clamp_min(torch.finfo(logprobs.dtype).min)).sum(-1)
    own = logprobs[torch.arange(len(given.written)), list(given.written)].exp()
    spelled = Spelling(model.tokenizer)(given.written)
    apart = not any(piece.startswith(" ") for piece in spelled)
    pieces = [piece + " " * apart for piece in spelled]
    tokens = tuple(map(Token, pieces, own.tolist(), entropies.tolist()))
    whose = "the model’s own translation" if target is None else "the translation that was given, judged by the model"
    says = "No risk: calibrations are of answers, not of translations."
    return _Said("".join(pieces), whose, text, 0, tokens, None, says, _TRANSLATED)


# --- What documents say to it -----------------------------------------------------------------------------------------


def _unchecked(said: _Said) -> list[Document]:
    """Its values, as they would have been checked."""
    values = [claim.value for claim in claims_of(said.statement)]
    once = {(value.start, value.end): value for value in values}
    return [_span(value.text, value.start, value.end, value.kind, "not checked") for value in once.values()]


def _checks(said: _Said, index: Index, reader: Model | str) -> list[Document]:
    """An answer's values are judged as answers to what was asked; those of a statement within their sentences."""
    if not re.search(r"\w", said.statement):
        return []
    found: Sequence[Checked]
    if said.asked:
        passages = [one.passage for one in index.search(said.asked, COUNT)]
        found = Checker(index, reader).values(said.asked, said.statement, passages)
    else:
        found = Verifier(index, reader).verify(said.statement).claims
    names = _short_names({passage.document.name for passage in index.passages})
    return [
        _span(
            one.text,
            one.start,
            one.end,
            one.kind,
            one.verdict,
            one.found,
            [_quoted(each, names) for each in one.evidence],
        )
        for one in found
    ]


def _short_names(names: Set[str]) -> dict[str, str]:
    """Names of documents without the folder that all of them lie in: a page does not tell where its files are. Those
    that have nothing in common but the root get their last parts, as many as tell them apart."""
    folders = {os.path.dirname(name) for name in names}
    if not any(map(os.path.isabs, names)):
        common = os.path.commonpath(folders)
        return {name: os.path.relpath(name, common) if common else name for name in names}
    common = os.path.commonpath(folders) if all(map(os.path.isabs, names)) else os.sep
    if common != os.path.dirname(common):
        return {name: os.path.relpath(name, common) for name in names}
    ends: dict[str, str] = {}
    for kept in range(1, max(len(Path(name).parts) for name in names) + 1):
        ends = {name: os.sep.join(Path(name).parts[-kept:]).lstrip(os.sep) for name in names}
        if len(set(ends.values())) == len(names):
            break
    return ends


def _span(
    text: str,
    start: int,
    end: int,
    kind: str,
    verdict: str,
    found: str | None = None,
    evidence: Sequence[Document] = (),
) -> Document:
    says = VERDICTS[verdict] + (f": {found}" if found else "")
    place: Document = {"text": text, "start": start, "end": end, "kind": kind, "verdict": verdict, "says": says}
    return place | {"found": found, "evidence": list(evidence)}


def _quoted(one: Evidence, names: Mapping[str, str]) -> Document:
    answer = None if one.answer is None else [place - one.start for place in one.answer]
    return {
        "quote": one.quote,
        "document": names[one.document.name],
        "start": one.start,
        "end": one.end,
        "answer": answer,
    }


# --- The document -----------------------------------------------------------------------------------------------------


def _described(said: _Said, claims: Sequence[Document]) -> Document:
    def digits(value: float) -> float:
        return round(value, DIGITS) + 0.0

    tokens: list[dict[str, Any]] = [
        {"text": one.text, "probability": digits(one.probability), "entropy": digits(one.entropy)}
        for one in said.tokens
    ]
    return {
        "view": "truth",
        "asked": said.asked,
        "statement": said.statement,
        "whose": said.whose,
        "begins": said.begins,
        "tokens": tokens,
        "levels": [{"least": least, "name": name} for least, name in LEVELS],
        "risk": None if said.risk is None else digits(said.risk),
        "risk_says": said.risk_says,
        "checked": said.unchecked,
        "spans": [one for one in claims if one["kind"] != "claim"],
        "sentences": [one for one in claims if one["kind"] == "claim"],
        "verdicts": VERDICTS,
    }
