"""The views of the page by name, and one function that makes the document of any of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from glassformer.errors import InputError, did_you_mean
from glassformer.serving.progress import Progress
from glassformer.tasks.model import Model

if TYPE_CHECKING:
    from glassformer.serving.passes import Pass, Passes

Document = dict[str, Any]

VIEWS: dict[str, str] = {
    "tokens": "Text",
    "attention": "Attention",
    "positions": "Positions",
    "lens": "Lens",
    "patching": "Patching",
    "truth": "Truth",
    "walk": "Walk",
}
"""Name → title, in the order of the page's tabs."""


def make_view(
    model: Model,
    view: str,
    text: str,
    *,
    target: str | None = None,
    patch_from: str | None = None,
    name: str = "",
    on_progress: Callable[[float], None] | None = None,
    stopped: Callable[[], bool] | None = None,
    options: Mapping[str, Any] | None = None,
    passes: Passes | None = None,
) -> Document:
    """The document of one view of a text, as `serving.documents` describes it; `name` is what the page calls the model.

    `target` is what an encoder-decoder is to write (by default its own, by greedy search); `patch_from` the text whose
    states "patching" puts into this one. `options` are the view's own: "packed" of attention, "layer" and "head" of
    walk, "documents", "risk" and "reader" of truth. With `passes`, of this model, views that need the same of a text
    let the model read it once.

    Long work tells `on_progress` the share that is done, 0 to 1, and raises `progress.Stopped` soon after `stopped()`
    is true. A view that the model's family does not have is a document with "missing". Raises `InputError` for an
    unknown view or option, and for texts as the views do.
    """
    if view not in VIEWS:
        raise InputError(f"no view is called '{view}'.{did_you_mean(view, VIEWS)}")
    progress = Progress(on_progress, stopped)
    progress.at(0.0)
    chosen = dict(options or {})
    unknown = sorted(set(chosen) - set(_OPTIONS.get(view, ())))
    if unknown:
        known = ", ".join(_OPTIONS.get(view, ())) or "none"
        raise InputError(f"the view '{view}' has no option '{unknown[0]}'; it has: {known}.")
    if view == "patching":
        document = _patching(model, text, patch_from, progress)
    elif view in ("tokens", "attention"):
        passed = None if passes is None else passes.of(text, target)
        document = _of_pass(model, view, text, target, progress, chosen, passed)
    else:
        document = _MAKERS[view](model, text, target, chosen)
    progress.at(1.0)
    return {**document, "model": name}


def make_views(
    model: Model,
    text: str,
    *,
    target: str | None = None,
    patch_from: str | None = None,
    name: str = "",
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Document]:
    """The documents of all views of a text, as `make_view` makes them, with the `options` of a view by its name.
    "patching" is left out where there is no text to patch from."""
    wanted = [view for view in VIEWS if view != "patching" or patch_from is not None]
    from glassformer.serving.passes import Passes

    asked = {"target": target, "patch_from": patch_from, "name": name, "passes": Passes(model)}
    found = []
    for view in wanted:
        try:
            found.append(make_view(model, view, text, options=(options or {}).get(view), **asked))  # type: ignore[arg-type]
        except InputError as error:
            if view != "truth":  # of a text that a model can read but not go on from, the rest is shown
                raise
            from glassformer.serving.documents import headed

            found.append(headed(model, text, {"view": view, "missing": str(error)}, name))
    return found


_OPTIONS = {
    "attention": ("packed",),
    "walk": ("layer", "head", "site", "place"),
    "truth": ("documents", "risk", "reader"),
}


def _lens(model: Model, text: str, target: str | None, options: Document) -> Document:
    from glassformer.serving.documents import lens_document

    return lens_document(model, text, target)


def _positions(model: Model, text: str, target: str | None, options: Document) -> Document:
    from glassformer.serving.positions import positions_document

    return positions_document(model, text, target)


def _truth(model: Model, text: str, target: str | None, options: Document) -> Document:
    from glassformer.serving.truth import truth_document

    return truth_document(model, text, target, **options)


def _walk(model: Model, text: str, target: str | None, options: Document) -> Document:
    from glassformer.serving.walk import walk_document

    return walk_document(model, text, target, **options)


def _of_pass(
    model: Model, view: str, text: str, target: str | None, progress: Progress, options: Document, passed: Pass | None
) -> Document:
    from glassformer.serving.documents import attention_document
    from glassformer.serving.surprisal import tokens_document

    if view == "attention":
        return attention_document(model, text, target, **options, passed=passed)
    return tokens_document(model, text, target, progress, passed=passed)


def _patching(model: Model, text: str, patch_from: str | None, progress: Progress) -> Document:
    from glassformer.serving.documents import headed, patching_document

    if patch_from is None:
        asks = "give a second text of as many tokens to patch from: it says what is put into this one."
        return headed(model, text, {"view": "patching", "missing": asks})
    return patching_document(model, text, patch_from, progress)


_MAKERS: dict[str, Callable[[Model, str, str | None, Document], Document]] = {
    "positions": _positions,
    "lens": _lens,
    "truth": _truth,
    "walk": _walk,
}
