"""Going on from a text while it is edited."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from glassformer.errors import InputError
from glassformer.interpret.inputs import Inputs, prepare, repeated
from glassformer.interpret.running import Editing, Plan, ready
from glassformer.models.decoder import Decoder
from glassformer.models.families import TEXT_TO_TEXT
from glassformer.tasks.model import Model


def edited(model: Model, given: Any, edits: Sequence[Editing], target: Any = None) -> Model:
    """The model as it is with these edits for this one text: its verbs go on from it, step by step, edited.

    Spans are counted in the text; the span `generated` is all that comes after it, `*` is everything. The edits do not
    fit other texts, and the model goes on from one text at a time. Hypotheses of an encoder-decoder's beam look into
    the source side by side: where patterns are edited or edges cut, it must be `beam=1` (`InputError`).
    """
    inputs = prepare(model, given, target)
    if len(inputs) != 1:
        raise InputError(f"a model goes on from one text when it is edited, got {len(inputs)}: take them one by one.")
    acting = [ready(edit, model, inputs) for edit in edits]
    return replace(model, network=_anew(Plan.of(acting, inputs, slice(0, 1)), model.network))


def _anew(plan: Plan, network: Any) -> Any:
    """The network by a plan whose positions are counted from 0 again whenever a text is begun."""
    copy = plan.on(network)

    def begun(function: Any) -> Any:
        def run(*arguments: Any, **settings: Any) -> Any:
            plan.rewind()
            return function(*arguments, **settings)

        return run

    for name in ("start", "hidden"):
        if hasattr(copy, name):
            setattr(copy, name, begun(getattr(copy, name)))
    if isinstance(network, TEXT_TO_TEXT) and (plan.cuts or any(put.kind == "pattern" for put in plan.puts)):
        copy.step = _one_by_one(copy.step)
    return copy


def _one_by_one(step: Any) -> Any:
    def checked(ids: Tensor, lengths: Tensor | None, state: Any) -> Any:
        if len(ids) > 1:
            raise InputError("with edges cut or patterns edited, an encoder-decoder goes on with beam=1.")
        return step(ids, lengths, state)

    return checked


def continued(model: Any, inputs: Inputs, edits: Sequence[Editing], count: int) -> Inputs:
    """Each text with `count` tokens more, as the edited model would write them, greedily."""
    if not isinstance(model, Model) or not isinstance(model.network, Decoder):
        raise InputError("'generate' goes on from a text: it is for a Model that is a decoder.")
    acting = [ready(edit, model, inputs) for edit in edits]
    rows, began = [], inputs.text.lengths.tolist()
    for row, length in enumerate(began):
        plan = Plan.of(acting, inputs, slice(row, row + 1))
        ids = inputs.text.ids[row, :length].tolist()
        writer = replace(model, network=plan.on(model.network))
        rows.append(ids + list(writer.generate(ids, max_new_tokens=count, ignore_eos=True).ids))
    longer = prepare(model, rows, written=began)
    spans = {**inputs.text.spans}
    text = replace(longer.text, spans=spans, written=began)
    return replace(longer, text=text, given=inputs.given)


__all__ = ["continued", "edited", "repeated"]
