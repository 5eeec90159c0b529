"""Writing files so that a kill, a crash or a full disk never damages what was there before."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from glassformer.errors import InputError


def write_bytes(path: Path, data: bytes) -> None:
    """Replace the file at `path` in one step: whoever reads it sees the old content or the new, never a part."""
    temporary = path.with_name(path.name + ".partial")
    try:
        write_stream(temporary, [data])
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_json(path: Path, content: Any) -> None:
    """`write_bytes` of indented JSON; floats are written so that reading gives the very same value."""
    write_bytes(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


def write_stream(path: Path, chunks: Iterable[Any]) -> str:
    """Write `chunks` of bytes to `path`, force them to the disk, and return the SHA-256 of the whole."""
    digest = hashlib.sha256()
    with open(path, "wb") as file:
        for chunk in chunks:
            file.write(chunk)
            digest.update(chunk)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_folder(folder: Path) -> None:
    """Force a folder's entries (new names, renames) to the disk, where the system can (Windows cannot)."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file. `InputError` where it is missing, cut short or something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: the file is missing.") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is damaged: byte {error.start} is not UTF-8. Use another copy.") from None
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}:{error.lineno} is not valid JSON ({error.msg}): cut short or damaged. Use another copy."
        ) from None
    if not isinstance(content, dict):
        raise InputError(f"{path} must hold a JSON object, got {type(content).__name__}.")
    return content


def checksum(content: dict[str, Any]) -> str:
    """A short checksum of a JSON object, its own key `checksum` left out."""
    rest = {key: value for key, value in content.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()[:16]


def verify_checksum(content: dict[str, Any], path: Path) -> None:
    """`InputError` where `content` carries a checksum that is not its own. Without one (edited by hand) it passes."""
    if "checksum" in content and content["checksum"] != checksum(content):
        raise InputError(
            f"{path} was changed after it was written: its checksum does not fit. Use another copy, "
            "or remove the key 'checksum' if you edited the file on purpose."
        )
