"""GET / and the files of the page: these, read at the start, and nothing else."""

from __future__ import annotations

from importlib.resources import files

from fastapi import FastAPI, Response

from glassformer.serving.inlining import LIVE_POLICY, page_file

_HEADERS = {"Content-Security-Policy": LIVE_POLICY, "Cache-Control": "no-cache", "X-Frame-Options": "DENY"}


def page_files() -> dict[str, tuple[bytes, str]]:
    """Each file of the page by its path, with its media type."""
    names = ["", *(file.name for file in files("glassformer.serving").joinpath("page").iterdir())]
    return {f"/{name}": found for name in sorted(names) if (found := page_file(name)) is not None}


def add_pages(app: FastAPI, pages: dict[str, tuple[bytes, str]]) -> None:
    """A path for each file."""
    for path, (content, media_type) in pages.items():
        app.add_api_route(path, _giving(content, media_type), methods=["GET"], include_in_schema=False)


def _giving(content: bytes, media_type: str):  # type: ignore[no-untyped-def] # noqa: ANN202 - FastAPI reads the inner one
    async def give() -> Response:
        return Response(content, media_type=media_type, headers=_HEADERS)

    return give
