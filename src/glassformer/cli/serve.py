"""`glassformer serve`: models behind an HTTP API that OpenAI's clients know, and a page that shows what is in them."""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from glassformer.cli.options import RunPrecisionOption
from glassformer.cli.output import put, say
from glassformer.cli.plan import BYTES, amount
from glassformer.cli.running import load_to_run
from glassformer.errors import InputError
from glassformer.tasks.precision import Precision

if TYPE_CHECKING:
    from glassformer.serving.api.service import Grounds
    from glassformer.tasks.model import Model

KEY = "GLASSFORMER_API_KEY"


@dataclass(frozen=True)
class Limiting:
    """What the server and one request may take at most."""

    streams: Annotated[int, Parameter(help="Texts that a model generates at once.")] = 16
    queue: Annotated[int, Parameter(help="More texts that wait; what comes after is answered with 429.")] = 64
    memory: Annotated[
        str,
        Parameter(
            help="For keys and values of texts that are generated, such as 4GB; texts that do not fit wait. 0 is a "
            "third of what is free."
        ),
    ] = "0"
    max_body: Annotated[int, Parameter(help="Bytes of a request.")] = 2 * 2**20
    max_prompt: Annotated[int, Parameter(help="Tokens of a prompt; 0 is the model's positions.")] = 0
    max_tokens: Annotated[int, Parameter(help="Tokens that a request may ask for, for each text.")] = 4096
    max_seconds: Annotated[float, Parameter(help="Seconds that an answer may take; it ends there.")] = 600.0
    workers: Annotated[int, Parameter(help="Threads for vectors, views and answers from documents.")] = 2


LimitOptions = Annotated[Limiting, Parameter(name="*")]


def serve(
    *,
    model: Annotated[
        tuple[str, ...],
        Parameter(
            help="A run, a folder, a GGUF file or a known name; may be given several times. NAME=MODEL has clients "
            "call it NAME."
        ),
    ],
    host: Annotated[str, Parameter(help="The address to listen at; others than this machine's own need a key.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, Parameter(help="The port; 0 is any that is free.")] = 8000,
    api_key: Annotated[
        str | None,
        Parameter(help=f"What clients have to know. {KEY} says it too, and is not seen among the processes."),
    ] = None,
    insecure: Annotated[bool, Parameter(help="Serve everyone who reaches this machine.", negative="")] = False,
    documents: Annotated[
        tuple[Path, ...], Parameter(help="/v1/ask answers with words of these files and folders.")
    ] = (),
    reader: Annotated[
        str, Parameter(help="With --documents: the model that finds the answer in a passage.")
    ] = "squad-minilm",
    risk: Annotated[
        Path | None, Parameter(help="A calibration of the first model (glassformer calibrate), for /v1/ask.")
    ] = None,
    precision: RunPrecisionOption = "stored",
    limits: LimitOptions = Limiting(),  # noqa: B008 - frozen
    finish: Annotated[
        float, Parameter(help="When it is stopped: seconds in which answers may come to their end.")
    ] = 30,
) -> None:
    """Serve models until Ctrl-C, at the address that is printed when they are ready.

    The API is OpenAI's (/v1/models, /v1/completions, /v1/chat/completions, /v1/embeddings), with /v1/translate,
    /v1/ask, /v1/classify, /v1/answer, /v1/fill and /v1/trace beside it, /tokenize, /health and /metrics; /openapi.json
    describes it all. At / is a page that shows what the models do.
    """
    _need_libraries()
    key = api_key if api_key is not None else os.environ.get(KEY)
    names = model_names(model)
    from glassformer.serving.api.limits import Limits
    from glassformer.serving.api.running import address_of, bind, check_exposure
    from glassformer.serving.api.running import serve as run
    from glassformer.serving.api.service import Service
    from glassformer.serving.threads import in_a_thread

    check_exposure(host, key, insecure)
    if not 0 <= finish < math.inf:
        raise InputError(f"--finish must be a number of seconds from 0, got {finish}.")
    checked = Limits(
        body_bytes=limits.max_body,
        prompt_tokens=limits.max_prompt,
        new_tokens=limits.max_tokens,
        seconds=limits.max_seconds,
        streams=limits.streams,
        queue=limits.queue,
        memory=_memory(limits.memory),
        workers=limits.workers,
    )
    listening = bind(host, port)

    def load() -> Service:
        models = {name: load_to_run(place, precision) for name, place in names.items()}
        return Service(models, checked, _grounds(documents, reader, risk, models, precision))

    service = in_a_thread(load)
    ready = f"{', '.join(names)}: {address_of(listening, host)}"
    run(service, listening, host, key=key, finish=finish, ready=lambda: put(ready))


def _memory(text: str) -> int:
    """`"4GB"` → 4,000,000,000; 0 as it is."""
    return 0 if text.strip() == "0" else int(amount(text, BYTES, "--memory", "4GB"))


def model_names(given: Sequence[str]) -> dict[str, str]:
    """What clients call each model → what it is loaded by. Of a path only its last part is told to them."""
    found: dict[str, str] = {}
    for one in given:
        name, equals, place = one.partition("=")
        if not equals or Path(one).exists():
            name, place = Path(one).name or one, one
        if not name or not place:
            raise InputError(f"--model must be MODEL or NAME=MODEL, got '{one}'.")
        if name in found:
            raise InputError(f"two models would be called '{name}': give one of them another name, NAME={place}.")
        found[name] = place
    return found


def _need_libraries() -> None:
    for library in ("fastapi", "uvicorn", "prometheus_client"):
        if importlib.util.find_spec(library) is None:
            raise InputError(f"serving needs {library}: pip install 'glassformer[serve]'.")


def _grounds(
    documents: tuple[Path, ...], reader: str, risk: Path | None, models: dict[str, Model], precision: Precision
) -> Grounds:
    """What /v1/ask may use, loaded before anybody asks."""
    from glassformer.factuality import calibration
    from glassformer.serving.api.service import Grounds

    first = next(iter(models))
    known = None if risk is None else calibration.load(risk, models[first], first)
    if not documents:
        return Grounds(risk=known, calibrated=first if known else "")
    from glassformer.factuality.asking import index_of
    from glassformer.factuality.documents import read_documents

    index = index_of(read_documents(documents, say=say).told_by(documents), say)
    return Grounds(index, load_to_run(reader, None), known, first if known else "")
