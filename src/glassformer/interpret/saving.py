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
from glassformer.interpret.edits import Ablate, Apply, Edit, Knockout, Patch, Steer
from glassformer.interpret.expressions import parse
from glassformer.interpret.inputs import network_of
from glassformer.interpret.paths import PathPatch
from glassformer.interpret.trace import Trace

FORMAT = 1


def save_edits(path: str | Path, edits: Sequence[Edit | PathPatch]) -> Path:
    """Write the edits to `path`.json and, if they hold numbers, `path`.safetensors; the path of the first.

    An `Apply` is kept by its function's name, and so only where that can be imported again. References of an ablation
    are kept as texts. Raises `InputError` for what cannot be kept.
    """
    path = _stem(path)
    tensors: dict[str, Tensor] = {}
    records = [_record(number, edit, tensors) for number, edit in enumerate(edits)]
    if tensors:
        write_bytes(path.with_suffix(".safetensors"), save({k: v.contiguous().cpu() for k, v in tensors.items()}))
    write_json(path.with_suffix(".json"), {"format": FORMAT, "edits": records})
    return path.with_suffix(".json")


def load_edits(path: str | Path, *, functions: bool = False) -> list[Edit | PathPatch]:
    """What `save_edits` wrote. Raises `InputError` for files that are missing, damaged or newer.

    An `Apply` names a function, and a stranger's file may name any: such a file is read only with `functions`.
    """
    path = _stem(path)
    content = read_json(path.with_suffix(".json"))
    if not isinstance(content, dict) or not isinstance(content.get("edits"), list):
        raise InputError(f"{path.with_suffix('.json')} holds no edits.")
    if content.get("format") != FORMAT:
        raise InputError(f"{path.with_suffix('.json')} has the format {content.get('format')}, this reads {FORMAT}.")
    if not functions and any(isinstance(each, dict) and each.get("edit") == "apply" for each in content["edits"]):
        raise InputError(f"{path.with_suffix('.json')} names functions to run: if you trust it, say functions=True.")
    tensors = _tensors(path.with_suffix(".safetensors"))
    try:
        return [_edit(number, record, tensors) for number, record in enumerate(content["edits"])]
    except (KeyError, TypeError) as error:
        raise InputError(f"{path.with_suffix('.json')} is damaged: {error!r}.") from None


def _stem(path: str | Path) -> Path:
    path = Path(path)
    return path.with_suffix("") if path.suffix in (".json", ".safetensors") else path


def _record(number: int, edit: Edit | PathPatch, tensors: dict[str, Tensor]) -> dict[str, Any]:
    if isinstance(edit, Knockout):
        return {"edit": "knockout", "attention": edit.attention, "dst": edit.dst, "src": edit.src}
    if isinstance(edit, Ablate):
        reference = None if edit.reference is None else _texts(edit.reference)
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
        return Knockout(record["attention"], dst=record["dst"], src=record["src"])
    if kind == "ablate":
        return Ablate(record["site"], record["to"], record["reference"], record["seed"])
    if kind == "steer":
        return Steer(record["site"], tensors[f"{number}"], record["scale"])
    if kind == "apply":
        return Apply(record["site"], _function(record["function"]))
    if kind == "path":
        values = {name: tensors[f"{number}/{name}"] for name in record["sites"]}
        return PathPatch(record["sender"], record["receiver"], values)
    if kind != "patch":
        raise InputError(f"there is no edit '{kind}': the file is damaged or newer.")
    if "sites" not in record:
        return Patch(record["site"], tensors[f"{number}"])
    return Patch(record["site"], {name: tensors[f"{number}/{name}"] for name in record["sites"]})


def _texts(reference: Any) -> list[str]:
    items = [reference] if isinstance(reference, str) else list(reference)
    texts = [item if isinstance(item, str) else getattr(item, "prompt", None) for item in items]
    if not all(isinstance(text, str) for text in texts):
        raise InputError("a reference is kept as texts; this one is made of ids.")
    return [str(text) for text in texts]


def _name(function: Callable[..., Any]) -> str:
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", "<")
    if module is None or "<" in name or module == "__main__":
        raise InputError("an apply is kept by its function's name: put the function into a module, at its top.")
    return f"{module}:{name}"


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
