"""One file that is a whole page: modules, style and documents put into `page/index.html`, for a browser without a net.

On disk the page is plain ES modules, one a view, which a server gives out as they are (`page_file`). A file that is
opened from a folder may not import others, so here every module becomes a function that returns what it exports. What
the modules may write is what is understood here: `import { a, b as c } from "./name.js";` on one line, and `export
function`, `export async function` or `export const`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from glassformer.checkpoints.files import write_bytes

_PAGE = files("glassformer.serving").joinpath("page")

LIVE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src blob: data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The Content-Security-Policy of the page that a server gives out: it loads its own files and asks its own server."""

_MEDIA_TYPES = {"html": "text/html; charset=utf-8", "css": "text/css", "js": "text/javascript"}

_IMPORT = re.compile(r'^import \{ (.+) \} from "\./(\w+)\.js";$', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:(?:async )?function|const) (\w+))", re.MULTILINE)
_STYLE = '<link rel="stylesheet" href="style.css">\n<link rel="stylesheet" href="lessons.css">'
_SCRIPT = '<script type="module" src="main.js"></script>'
_DOCUMENTS = "<!-- documents -->"


def write_page(documents: Sequence[dict[str, Any]], out: Path) -> Path:
    """Write the page that shows `documents` (see `serving.documents`) to `out`, in one step, and return its path.

    The file is whole: it loads nothing, and tells the browser not to. Folders that are missing are made.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(out, page(documents).encode())
    return out


def page(documents: Sequence[dict[str, Any]]) -> str:
    """The text of that file."""
    style, script = f"\n{_read('style.css')}{_read('lessons.css')}", f"\n{bundle('main')}"
    html = _read("index.html")
    for part, instead in (
        (_STYLE, f"{_policy(style, script)}\n<style>{style}</style>"),
        (_SCRIPT, f'<script type="module">{script}</script>'),
        (_DOCUMENTS, "\n".join(map(_element, documents))),  # the last: what a text says is not looked through again
    ):
        before, found, after = html.partition(part)
        assert found, f"page/index.html has no {part}"
        html = before + instead + after
    return html


def page_file(name: str) -> tuple[bytes, str] | None:
    """A file of the page and its media type, by what follows the last slash of its address: "" is the page itself.
    None for a name that is none of its files."""
    name = name or "index.html"
    if name not in {file.name for file in _PAGE.iterdir()} or name.rpartition(".")[2] not in _MEDIA_TYPES:
        return None
    return _PAGE.joinpath(name).read_bytes(), _MEDIA_TYPES[name.rpartition(".")[2]]


def bundle(main: str) -> str:
    """The module `main` and all that it imports, each as a function that has run before those that import it."""
    written: dict[str, str] = {}

    def add(name: str) -> None:
        source = _read(f"{name}.js")
        for _, other in _IMPORT.findall(source):
            if other not in written:
                add(other)
        written[name] = _as_function(name, source)

    add(main)
    return "\n".join(written.values())


def _as_function(name: str, source: str) -> str:
    exported = ", ".join(found[1] for found in _EXPORT.finditer(source))
    body = _IMPORT.sub(lambda found: f"const {{ {found[1].replace(' as ', ': ')} }} = {_module(found[2])};", source)
    body = _EXPORT.sub("", body)
    assert not re.search(r"^(import|export)\b", body, re.MULTILINE), (
        f"page/{name}.js: an import or export not known here"
    )
    assert "</script" not in body and "<!--" not in body, f"page/{name}.js would end its own element, or not end it"
    return f"// {name}.js\nconst {_module(name)} = (() => {{\n{body}\nreturn {{ {exported} }};\n}})();\n"


def _module(name: str) -> str:
    return f"module_{name}"


def _element(document: dict[str, Any]) -> str:
    """A document within the page. `<` is escaped, so that no text in it can end the element or begin another."""
    text = json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return f'<script type="application/json" class="document">{text}</script>'


def _policy(style: str, script: str) -> str:
    """Nothing may be loaded, and nothing may run but what was written here: whatever a text or a model's token says.
    Images are those that the page draws itself, to save them."""
    allowed = f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; img-src blob: data:"
    return f'<meta http-equiv="Content-Security-Policy" content="{allowed}">'


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _read(name: str) -> str:
    return _PAGE.joinpath(name).read_text(encoding="utf-8")
