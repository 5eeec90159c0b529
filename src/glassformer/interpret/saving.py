"""Edits in files: a JSON for what they are, a safetensors file for the numbers that they put."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from glassformer.checkpoints.files import read_json, write_bytes, write_json
from glassformer.errors import InputError
from glassformer.interpret.edits import Ablate, Apply, Edit, Knockout, Patch, Steer, ablate, apply, knockout, steer
from glassformer.interpret.expressions import parse
from glassformer.interpret.facts import Fact, Facts
from glassformer.interpret.inputs import network_of
from glassformer.interpret.paths import PathPatch
from glassformer.interpret.trace import Trace

FORMAT = 1


def save_edits(path: str | Path, edits: Sequence[Edit | PathPatch]) -> Path:
    """Write the edits to `path`.json and, if they hold numbers, `path`.safetensors; the path of the first.

    An `Apply` is kept by its function's name, and so only where that can be imported again. References of an ablation
    are kept as texts, ids or facts. Raises `InputError` for what cannot be kept.
    """
    path, numbers = _files(path)
    tensors: dict[str, Tensor] = {}
    records = [_record(number, edit, tensors) for number, edit in enumerate(edits)]
    if tensors:
        write_bytes(numbers, save({name: value.detach().cpu().clone() for name, value in tensors.items()}))
    write_json(path, {"format": FORMAT, "edits": records})
    return path


def load_edits(path: str | Path, *, functions: bool = False) -> list[Edit | PathPatch]:
    """What `save_edits` wrote. Raises `InputError` for files that are missing, damaged or newer.

    An `Apply` names a function, and a stranger's file may name any: such a file is read only with `functions`.
    """
    path, numbers = _files(path)
    content = read_json(path)
    if not isinstance(content.get("edits"), list):
        raise InputError(f"{path} holds no edits.")
    if content.get("format") != FORMAT:
        raise InputError(f"{path} has the format {content.get('format')}, this reads {FORMAT}.")
    if not functions and any(isinstance(each, dict) and each.get("edit") == "apply" for each in content["edits"]):
        raise InputError(f"{path} names functions to run: if you trust it, say functions=True.")
    tensors = _tensors(numbers)
    try:
        return [_edit(number, record, tensors) for number, record in enumerate(content["edits"])]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is damaged, or {numbers.name} is not of it: {error!r}.") from None


def _files(path: str | Path) -> tuple[Path, Path]:
    """The JSON and the numbers beside it. A dot in the name that begins neither ending belongs to the name."""
    path = Path(path)
    name = path.stem if path.suffix in (".json", ".safetensors") else path.name
    return path.with_name(f"{name}.json"), path.with_name(f"{name}.safetensors")


def _record(number: int, edit: Edit | PathPatch, tensors: dict[str, Tensor]) -> dict[str, Any]:
    if isinstance(edit, Knockout):
        return {"edit": "knockout", "attention": edit.attention, "dst": edit.dst, "src": edit.src}
    if isinstance(edit, Ablate):
        reference = None if edit.reference is None else _plain(edit.reference)
        return {"edit": "ablate", "site": edit.site, "to": edit.to, "seed": edit.seed, "reference": reference}
    if isinstance(edit, Steer):
        tensors[f"{number}"] = edit.vector
        return {"edit": "steer", "site": edit.site, "scale": edit.scale}
    if isinstance(edit, Apply):
        return {"edit": "apply", "site": edit.site, "function": _name(edit.function)}
    site, record = (
        (edit.sender, {"edit": "path", "sender": edit.sender, "receiver": edit.receiver})
        if isinstance(edit, PathPatch)
        else (edit.site, {"edit": "patch", "site": edit.site})
    )
    source = edit.source
    if isinstance(source, Trace):
        source = source.whole(parse(site, network_of(source.model)))
    if isinstance(source, Tensor):
        tensors[f"{number}"] = source
        return record
    tensors.update({f"{number}/{name}": value for name, value in source.items()})
    return {**record, "sites": list(source)}


def _edit(number: int, record: dict[str, Any], tensors: dict[str, Tensor]) -> Edit | PathPatch:
    kind = record["edit"]
    if kind == "knockout":
        return knockout(record["attention"], dst=record["dst"], src=record["src"])
    if kind == "ablate":
        return ablate(record["site"], record["to"], _reference(record["reference"]), int(record["seed"]))
    if kind == "steer":
        return steer(record["site"], tensors[f"{number}"], float(record["scale"]))
    if kind == "apply":
        return apply(record["site"], _function(record["function"]))
    if kind == "path":
        values = {name: tensors[f"{number}/{name}"] for name in record["sites"]}
        return PathPatch(record["sender"], record["receiver"], values)
    if kind != "patch":
        raise InputError(f"there is no edit '{kind}': the file is damaged or newer.")
    if "sites" not in record:
        return Patch(record["site"], tensors[f"{number}"])
    return Patch(record["site"], {name: tensors[f"{number}/{name}"] for name in record["sites"]})


def _plain(reference: Any) -> Any:
    """A reference as plain values: a text, ids, a fact by its fields, and lists of them."""
    if isinstance(reference, Fact):
        return vars(reference)
    if isinstance(reference, Tensor):
        return reference.tolist()
    if isinstance(reference, str | int):
        return reference
    if not isinstance(reference, Sequence):
        raise InputError(f"a reference is kept as texts, ids or facts; got {type(reference).__name__}.")
    return [_plain(item) for item in reference]


def _reference(kept: Any) -> Any:
    """What `_plain` made plain."""
    if isinstance(kept, dict):
        return Fact(**kept)
    if not isinstance(kept, list):
        return kept
    items = [_reference(item) for item in kept]
    return Facts(tuple(items)) if items and all(isinstance(item, Fact) for item in items) else items


def _name(function: Callable[..., Any]) -> str:
    """The function's module and its name there, by which it is found again."""
    module = getattr(function, "__module__", None)
    for name in (getattr(function, "__qualname__", None), getattr(function, "__name__", None)):
        if module in (None, "__main__") or name is None or "<" in name:
            continue
        try:
            if _function(f"{module}:{name}") is function:
                return f"{module}:{name}"
        except InputError:
            continue
    raise InputError("an apply is kept by its function's name: put the function into a module, at its top.")


def _function(name: str) -> Callable[[Tensor], Tensor]:
    module, _, attribute = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError):
        raise InputError(f"the edit's function '{name}' cannot be imported here.") from None
    return found  # type: ignore[no-any-return]


def _tensors(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        return {}
    try:
        with safe_open(path, framework="pt") as file:
            return {name: torch.as_tensor(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} cannot be read: {error}.") from None
