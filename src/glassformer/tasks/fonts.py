"""Letters of any script in a picture: the fonts this machine has for them, and what to show where it has none."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import lru_cache

import matplotlib
from matplotlib import font_manager

_FIRST = "DejaVu Sans"  # comes with matplotlib: Latin, Greek, Cyrillic, Arabic, Hebrew, Georgian, Armenian
_NO_LETTERS = ("Last Resort", "STIX", "cm", "DejaVu")  # boxes for everything, and mathematics
_LONGEST = 16
_VISIBLE = {" ": "␣", "\u00a0": "␣", "\u202f": "␣", "\n": "⏎", "\t": "⇥"}


class Lettering:
    """How to write the characters of `text`: `style()` sets the fonts, `label` makes a token fit to be shown.

    Looks through the installed fonts only for characters that matplotlib's own font lacks.
    """

    def __init__(self, text: str) -> None:
        self.families = [_FIRST]
        self._missing = {ord(c) for c in _shown(text)} - _characters(font_manager.findfont(_FIRST))
        for family, path in _installed() if self._missing else ():
            found = self._missing & _characters(path)
            if found:
                self.families.append(family)
                self._missing -= found
            if not self._missing:
                break

    def style(self) -> AbstractContextManager[None]:
        """Inside, matplotlib writes with these fonts, each character in the first that has it."""
        return matplotlib.rc_context({"font.family": self.families, "svg.hashsalt": "glassformer"})

    def label(self, token: str) -> str:
        """The token as shown: spaces visible, a lone accent on a dotted circle, `U+65E5` where no font has a letter."""
        shown = _shown(token if len(token) <= _LONGEST else token[: _LONGEST - 1] + "…")
        if any(ord(c) in self._missing or unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Cn") for c in shown):
            return " ".join(f"U+{ord(c):04X}" for c in token[:2]) + ("…" if len(token) > 2 else "")
        return "◌" + shown if shown and unicodedata.combining(shown[0]) else shown


def _shown(text: str) -> str:
    return "".join(_VISIBLE.get(c, c) for c in text)


@lru_cache(maxsize=64)
def _characters(path: str) -> frozenset[int]:
    return frozenset(font_manager.get_font(path).get_charmap())


def _installed() -> Iterator[tuple[str, str]]:
    """Families and files of upright fonts for text, those made for many scripts first."""
    entries = {
        font.name: font.fname
        for font in font_manager.fontManager.ttflist
        if font.style == "normal" and not font.name.startswith(_NO_LETTERS)
    }
    yield from sorted(entries.items(), key=lambda item: (not item[0].startswith("Noto"), item[0]))
