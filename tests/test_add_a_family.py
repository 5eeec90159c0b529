"""`docs/add-a-family.md` is right: its code is taken from the page, put where it says, and run.

The files that the page writes become modules in memory, its rows are applied to the two tables, and the tests that it
shows are the tests below.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from glassformer.checkpoints.families import families
from glassformer.checkpoints.maps import MAPS
from glassformer.errors import InputError

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "add-a-family.md"
TABLES: tuple[tuple[str, dict[str, Any]], ...] = (("families", families), ("MAPS", MAPS))


@dataclass(frozen=True)
class Fenced:
    """A block of code of the page: where it begins, its language, and the file that its first line names."""

    line: int
    language: str
    path: str
    code: str


def read_page() -> list[Fenced]:
    text = PAGE.read_text(encoding="utf-8")
    found = []
    for match in re.finditer(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        language, code = match.groups()
        line = text.count("\n", 0, match.start()) + 1
        path = re.match(r"# (\S+\.py)\n|--- (\S+\.py)\n", code)
        assert path is not None, f"{PAGE}:{line}: the first line of a block must name its file"
        found.append(Fenced(line, language, path[1] or path[2], code))
    return found


BLOCKS = {block.path: block for block in read_page()}
FILES = [block for block in BLOCKS.values() if block.language == "python"]


def as_module(block: Fenced) -> ModuleType:
    """A file of the page as a module; tracebacks show the page's lines."""
    name = block.path.removeprefix("src/").removesuffix(".py").replace("/", ".")
    module = ModuleType(name if block.path.startswith("src/") else f"add_a_family.{name}")
    module.__file__ = str(PAGE)
    sys.modules[module.__name__] = module
    exec(compile("\n" * block.line + block.code, str(PAGE), "exec"), module.__dict__)
    return module


def with_row(block: Fenced) -> str:
    """The source of the file that a diff of the page is for, changed as the diff says."""
    source = (ROOT / block.path).read_text(encoding="utf-8")
    for hunk in block.code.split("@@\n")[1:]:
        lines = hunk.splitlines(keepends=True)
        before, after = ("".join(line[1:] for line in lines if line[0] in sides) for sides in (" -", " +"))
        assert source.count(before) == 1, f"{PAGE}:{block.line}: {block.path} does not hold {before!r} once"
        source = source.replace(before, after)
    return source


own, model_tests, own_map, parity_tests = (as_module(block) for block in FILES)


@pytest.fixture(autouse=True, scope="module")
def _rows() -> Iterator[None]:
    """The tables have the rows that the page adds, for this module."""
    diffs = [block for block in BLOCKS.values() if block.language == "diff"]
    with pytest.MonkeyPatch.context() as patch:
        for block, (name, table) in zip(diffs, TABLES, strict=True):
            changed = ModuleType("changed")
            patch.setitem(sys.modules, "changed", changed)
            exec(compile(with_row(block), block.path, "exec"), changed.__dict__)
            rows = getattr(changed, name)
            assert set(rows) - set(table) == {"cobalt"}, block.path
            patch.setitem(table, "cobalt", rows["cobalt"])
        yield
    for module in (own, model_tests, own_map, parity_tests):
        sys.modules.pop(module.__name__, None)


test_contract = model_tests.test_contract
test_builds_on_the_meta_device = model_tests.test_builds_on_the_meta_device
test_other_choices_are_refused = model_tests.test_other_choices_are_refused
test_both_ways = parity_tests.test_both_ways
test_it_writes_what_they_would_write = parity_tests.test_it_writes_what_they_would_write


def test_every_test_of_the_page_is_run() -> None:
    shown = {name for module in (model_tests, parity_tests) for name in vars(module) if name.startswith("test_")}
    assert shown <= set(globals())
    assert len(BLOCKS) == 6, "files are named twice, or a block was added that nothing here runs"


def test_no_shipped_family_is_such_a_network() -> None:
    """The example is a new one: no other map would hold it."""
    for name, architecture in MAPS.items():
        if name != "cobalt":
            with pytest.raises(InputError):
                architecture.write_config(model_tests.SMALL)


@pytest.mark.parametrize("block", FILES, ids=lambda block: block.path)
def test_the_code_is_as_the_house_wants_it(block: Fenced) -> None:
    # The order of imports is left aside: ruff looks in the tree for what is ours, and Cobalt is not there.
    options = ["--quiet", "--ignore", "I001", "--stdin-filename", block.path, "-"]
    command = [sys.executable, "-m", "ruff", "check", *options]
    result = subprocess.run(command, input=block.code, capture_output=True, text=True, cwd=ROOT)
    if "No module named ruff" in result.stderr:
        pytest.skip("ruff is not installed")
    assert result.returncode == 0, result.stdout + result.stderr


def test_what_the_page_names_is_there() -> None:
    """Files, and names in them, of which the text around the code speaks."""
    text = re.sub(r"^```.*?^```$", "", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    places = [ROOT, ROOT / "src" / "glassformer", ROOT / "tests" / "parity"]
    names = {name for name in re.findall(r"`([\w./-]+(?:\.py|/))`", text) if not re.search("cobalt|NAME", name)}
    assert len(names) > 10
    assert not [name for name in names if not any((place / name).exists() for place in places)]
    code = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    tests = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py"))
    words = set(re.findall(r"`(?:Model\.)?([A-Za-z_]{4,})`", text)) - {"Cobalt", "Conv1D", "cobalt"}
    known = {*re.findall(r"\w+", code), *re.findall(r"\w+", tests)}
    assert len(words) > 25
    assert not sorted(words - known)
