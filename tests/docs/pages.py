"""The fenced blocks of the pages: what is code, where it stands, and what is said of code that is not run.

A comment right before a block says why it is not run, as a whole or those of its commands that hold one of some words:

    <!-- not run: needs eight GPUs -->
    <!-- not run (make, --quick): minutes each -->
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
CODE = ("bash", "python")
"""The languages that are run; blocks of others show something."""

PROGRAM = re.compile(
    r"(glassformer|python|python3|pip|make|curl|torchrun|bash|cat|cd|\.|sbatch|sky|kubectl|vllm|lm_eval|mkdocs) "
)
"""How a line begins that somebody could type into a shell."""

_BLOCK = re.compile(
    r"(?:^<!-- not run(?: \((?P<only>[^)]*)\))?: (?P<reason>[^\n]+?) -->\n\n?)?"
    r"^```(?P<language>\w*)(?P<options>[^\n]*)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A block of a page, under a heading. Where a `reason` is given it is not run, or not its commands with a word of
    `only`."""

    page: Path
    line: int
    heading: str
    language: str
    code: str
    reason: str
    only: tuple[str, ...]

    @property
    def where(self) -> str:
        """As an editor opens it."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def skipped(self) -> bool:
        """Whether none of it is run."""
        return bool(self.reason) and not self.only

    def runs(self, command: str) -> bool:
        """Whether one of its commands is run."""
        return not self.skipped and not any(word in command for word in self.only)


def blocks(page: Path) -> list[Block]:
    """All blocks of a page."""
    text = page.read_text(encoding="utf-8")
    found = []
    for one in _BLOCK.finditer(text):
        headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", text[: one.start()], flags=re.M | re.S), re.M)
        only = tuple(word.strip() for word in (one["only"] or "").split(",") if word.strip())
        line = text.count("\n", 0, one.start("language")) + 1
        heading = headings[-1] if headings else ""
        found.append(Block(page, line, heading, one["language"], one["code"], one["reason"] or "", only))
    return found


def commands(code: str) -> list[str]:
    """The commands of a shell's block: a line each, with the lines that it is continued on."""
    found: list[str] = []
    for line in code.splitlines():
        if found and (found[-1].endswith("\\") or _open(found[-1])):
            found[-1] += f"\n{line}"
        elif line.strip() and not line.lstrip().startswith("#"):
            found.append(line)
    return found


def _open(command: str) -> bool:
    """Whether a quote has been opened and not closed; those of comments do not count."""
    return re.sub(r"(^|\s)# .*", "", command).count("'") % 2 == 1
