"""`glassformer params`: what a model is made of, and what it costs in memory and in arithmetic."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from glassformer.cli.output import put, put_json, size
from glassformer.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from glassformer.models.config import AnyConfig, Config
    from glassformer.models.counting import Count

WIDTH = 30


def params(
    model: Annotated[
        str | None,
        Parameter(help="A published size, such as gpt2, or a model's folder or GGUF file; without it, all sizes."),
    ] = None,
    *,
    context: Annotated[
        int | None, Parameter(help="How many positions a token attends to. Without it, as many as the model has.")
    ] = None,
    json: Annotated[bool, Parameter(help="One JSON object on standard output.", negative="")] = False,
) -> None:
    """Count a model's parameters by part, its memory by precision, and its FLOPs a token.

    A published size is counted from its configuration alone, so a model of 175 billion parameters takes no longer than
    a small one. In int8 and int4, dense layers are packed (8.5 and 5 bits a weight) and all else, the cache too, is
    fp32. A token's FLOPs are two for each weight that multiplies it, and those of its attention to --context positions;
    training takes three times as many.
    """
    from glassformer.models.counting import count
    from glassformer.models.sizes import sizes

    if context is not None and context < 1:
        raise InputError(f"--context must be at least 1, got {context}.")
    if model is None:
        counts = {name: count(config) for name, config in sizes.items()}
        _list(counts, json)
        return
    counted = count(config_of(model))
    asked = context or counted.config.max_length
    if json:
        put_json({"model": model, **_record(counted, asked)})
        return
    put(_about(model, counted))
    for table in (_parts(counted), _memory(counted, asked), _work(counted, asked)):
        put("")
        for line in table:
            put(line.rstrip())


def config_of(name: str) -> AnyConfig:
    """The configuration of a model on disk, without its weights where the format allows, or of a published size."""
    from glassformer.models.sizes import sizes

    path = Path(name)
    if not path.exists() and name in sizes:
        return sizes[name]
    if (path / "config.json").is_file() and not (path / "glassformer.json").is_file():
        return _foreign_config(path)
    from glassformer.checkpoints import native, opening

    if (path / native.INDEX).is_file() or (path / "checkpoints").is_dir() or name in native.shipped():
        return _own_config(native.find(name))
    if path.exists() or name in opening.PUBLISHED or "/" in name:
        config: AnyConfig = opening.open_model(name).config
        return config
    known = [*sizes, *native.shipped(), *opening.PUBLISHED]
    raise InputError(
        f"'{name}' is neither a published size nor a model.{did_you_mean(name, known)} Known: {', '.join(known)}."
    )


def _own_config(folder: Path) -> AnyConfig:
    from glassformer.checkpoints import native
    from glassformer.checkpoints.families import family
    from glassformer.settings import from_mapping

    index, where = native.read_index(folder), str(folder / native.INDEX)
    config: AnyConfig = from_mapping(family(index.family, where).config, index.config, f"{where} [config]")
    return config


def _foreign_config(folder: Path) -> Config:
    """Of a folder of Hugging Face, which may have no weights; ids of special tokens do not count."""
    from glassformer.checkpoints.files import read_json
    from glassformer.checkpoints.huggingface import open_weights
    from glassformer.checkpoints.maps import MAPS

    where = folder / "config.json"
    settings = {key: value for key, value in read_json(where).items() if not key.endswith("_token_id")}
    kind = settings.get("model_type")
    if kind not in MAPS:
        raise InputError(f"{where}: 'model_type' must be one of {', '.join(sorted(MAPS))}, got {kind!r}.")
    try:
        config = MAPS[kind].read_config(settings)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    fit = MAPS[kind].fit
    return fit(config, set(open_weights(folder))) if fit is not None and any(folder.glob("*.safetensors")) else config


def _list(counts: dict[str, Count], json: bool) -> None:
    if json:
        put_json({name: counted.total for name, counted in counts.items()})
        return
    for name, counted in counts.items():
        put(f"{name:<20}{counted.total:>18,}  {_shape(counted)}")


def _about(name: str, counted: Count) -> str:
    return (
        f"{name}: {_shape(counted)}, vocabulary {counted.config.vocab_size:,}, {counted.config.max_length:,} positions"
    )


def _shape(counted: Count) -> str:
    return f"{counted.family}, {counted.config.shape}"


def _parts(counted: Count) -> Iterable[str]:
    """Groups of parts with their sums, and below each its parts where there are several."""
    total = counted.total
    yield f"{'part':<{WIDTH}}{'parameters':>18}{'share':>9}"
    groups: dict[str, list[tuple[str, int]]] = {}
    for part in counted.parts:
        group, _, name = part.name.rpartition(".")
        groups.setdefault(_words(group or name), []).append((_words(name), part.parameters))
    for group, parts in groups.items():
        amount = sum(parameters for _, parameters in parts)
        note = "   (its matrix is the token embedding)" if group == "head" and counted.tied else ""
        yield f"{group:<{WIDTH}}{amount:>18,}{amount / total:>9.2%}{note}"
        if len(parts) > 1:
            yield from (f"  {name:<{WIDTH - 2}}{n:>18,}{n / total:>9.2%}" for name, n in parts)
    yield f"{'total':<{WIDTH}}{total:>18,}"
    yield f"{'without embeddings':<{WIDTH}}{total - counted.embeddings:>18,}"


def _words(name: str) -> str:
    """`decoder.self_attention` → `decoder self-attention`."""
    return name.replace("_attention", "-attention").replace("feed_", "feed-").replace("_", " ").replace(".", " ")


def _memory(counted: Count, context: int) -> Iterable[str]:
    from glassformer.models.counting import PRECISIONS

    yield f"{'memory':<{WIDTH}}" + "".join(f"{precision:>13}" for precision in PRECISIONS)
    yield f"{'weights':<{WIDTH}}" + "".join(f"{size(counted.memory(precision)):>13}" for precision in PRECISIONS)
    if counted.cache("fp32"):
        cache = [counted.cache(precision) for precision in PRECISIONS]
        yield f"{'keys and values, a token':<{WIDTH}}" + "".join(f"{size(n):>13}" for n in cache)
        whole = [counted.cache_of(context, precision) for precision in PRECISIONS]
        yield f"{f'keys and values, {context:,} tokens':<{WIDTH}}" + "".join(f"{size(n):>13}" for n in whole)


def _work(counted: Count, context: int) -> Iterable[str]:
    yield f"{f'FLOPs, context {context:,}':<{WIDTH}}" + "".join(
        f"{name:>13}" for name in ("weights", "attention", "forward", "training")
    )
    for reader, flops in counted.flops(context).items():
        numbers = (flops.weights, flops.attention, flops.forward, flops.training)
        yield f"{'a ' + reader:<{WIDTH}}" + "".join(f"{_flops(n):>13}" for n in numbers)


def _flops(number: int) -> str:
    value, units = float(number), ["", "k", "M", "G", "T", "P"]
    while value >= 1000 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.4g} {units[0]}".rstrip()


def _record(counted: Count, context: int) -> dict[str, Any]:
    from glassformer.models.counting import PRECISIONS

    return {
        "family": counted.family,
        "parts": {part.name: part.parameters for part in counted.parts},
        "total": counted.total,
        "without_embeddings": counted.total - counted.embeddings,
        "tied_head": counted.tied,
        "memory": {precision: counted.memory(precision) for precision in PRECISIONS},
        "cache_bytes_per_token": {precision: counted.cache(precision) for precision in PRECISIONS},
        "context": context,
        "flops": {
            reader: {
                "weights": flops.weights,
                "attention": flops.attention,
                "forward": flops.forward,
                "training": flops.training,
            }
            for reader, flops in counted.flops(context).items()
        },
    }
