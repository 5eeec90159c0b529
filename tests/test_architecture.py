"""The house keeps its shape: imports go one way, the command line is light, files stay readable."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "src" / "glassformer"
ORDER = [
    {"errors", "memory", "settings"},
    {"text", "layers"},
    {"models"},
    {"checkpoints"},
    {"generation"},
    {"tasks"},
    {"training"},
    {"planning"},
    {"interpret"},
    {"factuality"},
    {"studies"},
    {"serving"},
    {"cli", "__main__"},
]
RANK = {name: rank for rank, names in enumerate(ORDER) for name in names}
SOURCES = sorted(PACKAGE.rglob("*.py"))


def imported(path: Path) -> set[str]:
    """The parts of the package that a file imports, at its top or inside a function."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
        elif isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
    return {name.split(".")[1] for name in names if name.startswith("glassformer.")}


@pytest.mark.parametrize("path", [path for path in SOURCES if path.parent != PACKAGE], ids=lambda path: path.name)
def test_imports_point_leftwards(path: Path) -> None:
    own = path.relative_to(PACKAGE).parts[0]
    assert own in RANK, f"'{own}' has no place in the order of the architecture"
    for other in imported(path):
        assert other == own or RANK[other] < RANK[own], f"{path.name} ({own}) imports {other}"


def test_text_and_layers_do_not_know_each_other() -> None:
    for path in SOURCES:
        part = path.relative_to(PACKAGE).parts[0]
        if part in ("text", "layers"):
            assert not imported(path) & ({"text", "layers"} - {part}), path


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_stay_readable(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400


def test_nothing_is_unpickled() -> None:
    for path in SOURCES:
        text = path.read_text()
        for word in ("pickle", "torch.load(", "torch.save(", "marshal"):
            assert word not in text, f"{path}: {word}"


@pytest.mark.parametrize("module", ["glassformer", "glassformer.cli", "glassformer.text"])
def test_light_imports_leave_torch_alone(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
