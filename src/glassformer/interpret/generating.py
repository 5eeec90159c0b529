"""Going on from a text while it is edited."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from glassformer.errors import InputError
from glassformer.interpret.inputs import Inputs, prepare, repeated
from glassformer.interpret.running import Editing, Plan, ready
from glassformer.models.decoder import Decoder
from glassformer.tasks.model import Model


def edited(model: Model, given: Any, edits: Sequence[Editing], target: Any = None) -> Model:
    """The model as it is with these edits for this one text: its verbs go on from it, step by step, edited.

    Spans are counted in the text; the span `generated` is all that comes after it, `*` is everything. The edits do not
    fit other texts, and a text has to be read again from its beginning for each use of a plan: make one for each.
    """
    inputs = prepare(model, given, target)
    if len(inputs) != 1:
        raise InputError(f"a model goes on from one text when it is edited, got {len(inputs)}: take them one by one.")
    acting = [ready(edit, model, inputs) for edit in edits]
    return replace(model, network=Plan.of(acting, inputs, slice(0, 1)).on(model.network))


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
