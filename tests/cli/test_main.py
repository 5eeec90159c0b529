"""Help, mistakes, exit codes: what every verb has in common."""

from __future__ import annotations

import gc
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from processes import Glassformer

from glassformer.cli.main import main
from glassformer.cli.running import importing
from glassformer.errors import InputError

VERBS = (
    *("demo", "train", "finetune", "evaluate", "translate", "generate", "chat", "embed", "fill"),
    *("classify", "answer", "summarize", "inspect", "recall"),
    *("import", "export", "quantize", "params", "plot", "average", "models"),
)


def test_help_names_every_verb_and_a_command_to_begin_with(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f" {verb} " in shown for verb in VERBS)
    assert "glassformer demo" in shown


def test_no_verb_prints_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    bare = capsys.readouterr().out
    main(["--help"])
    assert bare == capsys.readouterr().out


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--help"]) == 0
    shown = capsys.readouterr().out
    assert f"glassformer {verb}" in shown.split("Examples:")[1]


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["chat", "--help"], ["--version"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys; from glassformer.cli.main import main; main(sys.argv[1:]);"
        "sys.exit(bool({'torch', 'numpy', 'matplotlib', 'tokenizers', 'babel'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["trian"], "train"),
        (["translate", "--modl", "x"], "--model"),
        (["translate"], "--model"),
        (["translate", "--model", "x", "--beam", "many"], "--beam"),
        (["train"], "recipes/dates.toml"),
        (["train", "a.toml", "--data-rot", "x"], "--data-root"),
        (["train", "a.toml", "b.toml"], "a.toml b.toml"),
        (["train", "a.toml", "--resume", "runs/x"], "--resume"),
        (["plot"], "glassformer plot"),
        (["generate", "a dog"], "--model"),
        (["embed", "--model", "no-such-model", "a dog"], "no-such-model"),
        (["quantize", "a", "b"], "--precision"),
        (["finetune"], "recipes/sst2.toml"),
        (["finetune", "recipes/dates.toml"], "--model"),
        (["finetune", "a.toml", "--lra"], "--lora"),
        (["classify", "a dog"], "--model"),
        (["answer", "--model", "x", "Who?"], "--context"),
        (["inspect", "a dog"], "--model"),
        (["inspect", "--model", "x", "a dog", "--patch-form", "a cat"], "--patch-from"),
        (["recall", "--model", "x"], "--facts"),
        (["recall", "--train", "a.toml", "--model", "x"], "--train"),
        (["summarize", "--model", "no-such-model", "--max-new-tokens", "few"], "--max-new-tokens"),
    ],
)
def test_a_mistake_is_one_line_with_a_hint(arguments: list[str], hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: ") and shown.err.count("\n") == 1
    assert hint in shown.err


def test_the_process_exits_with_the_code(glassformer: Glassformer) -> None:
    done = glassformer("translate", "--model", "no-such-model", "a dog")
    assert (done.code, done.out) == (2, "")
    assert "no-such-model" in done.err and done.err.count("\n") == 1


def test_a_reader_that_leaves_is_no_error(place: Path) -> None:
    command = f"'{sys.executable}' -m glassformer translate --model runs/tiny --beam 1 | head -n 1"
    lines = b"a dog runs .\n" * 4000
    done = subprocess.run(["bash", "-c", command], input=lines, capture_output=True, cwd=place, timeout=300)
    assert done.stderr == b""
    assert done.stdout.count(b"\n") == 1


@pytest.mark.parametrize("fails", [False, True])
def test_garbage_is_looked_for_again_once_torch_is_there(monkeypatch: pytest.MonkeyPatch, fails: bool) -> None:
    """And what came with it is set aside only once: later garbage must not be."""
    frozen: list[bool] = []
    monkeypatch.setattr(gc, "freeze", lambda: frozen.append(gc.isenabled()))
    assert torch.__name__ in sys.modules and gc.isenabled()
    with suppress(InputError), importing():
        assert not gc.isenabled()
        if fails:
            raise InputError("no such model")
    assert gc.isenabled() and not frozen
    monkeypatch.delitem(sys.modules, "torch")
    with suppress(InputError), importing():
        if fails:
            raise InputError("no such model")
    assert gc.isenabled() and frozen == ([] if fails else [False])


LEAN = """
import inspect
import sys
from glassformer.cli.running import importing
with importing(lean=True):
    import torch
print("torch._refs" in sys.modules)
print(torch.randint(9, (2,), generator=torch.Generator().manual_seed(1)).shape)
print(torch.nn.Linear(5, 3, device="meta").weight.shape)
print(inspect.getmodule(importing).__name__)
"""


def test_running_leaves_out_of_torch_what_tracing_wants() -> None:
    """In a process of its own: a part of torch stays away, and what running asks of it, and of Python, is there."""
    done = subprocess.run([sys.executable, "-c", LEAN], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1:] == ["torch.Size([2])", "torch.Size([3, 5])", importing.__module__]
    if torch.__version__.startswith("2.13."):
        assert done.stdout.startswith("False")
