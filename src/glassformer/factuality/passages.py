"""Where a text is cut: into sentences, and into passages that a reader takes in at once."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator

Range = tuple[int, int]
"""Characters [start, end) of a text."""

USUAL = 800
"""Characters of a passage, about 130 words of English; short paragraphs are put together until they have so many."""
LONGEST = 1100
"""Characters that a passage may have, about 180 words; a longer paragraph is cut at the ends of sentences."""
OVERLAP = 250
"""Characters that the last sentence of a passage may have to be the first of the next as well."""

_PARAGRAPH_END = re.compile(r"\r?\n[^\S\n]*(?:\r?\n\s*)+|\f\s*|\u2029\s*")
# A sentence ends at white space after its mark, unless a small letter follows, or an initial or an abbreviation stands
# before; and after the marks of scripts that need no white space.
_SENTENCE_END = re.compile(
    r"(?<=[.!?…।؟])(?<!\b\w\.)(?<!\b(?:Dr|Mr|Ms|St|Jr|Sr|No|Lt|vs|ca|cf)\.)(?<!\b(?:Mrs|Gen|Col|Rev|Sen|Gov|Fig|Vol)\.)"
    r"(?<!\b(?:Prof|Capt)\.)[\"'”’»)\]]*\s+(?![a-z])|(?<=[。！？])[」』”’）]*"
)
_WORD = re.compile(r"\w")
_ITEM = re.compile(r"\s*(?:[-*•–|#=>]|\(?\w{1,3}[.)]\s)")
_WRAPPED = range(
    40, 121
)  # characters of a line that may go on in the next: shorter ones are headings, longer paragraphs


def spans_of_passages(text: str) -> list[Range]:
    """Passages of a text: whole paragraphs, short ones together (up to `USUAL` characters), long ones (over `LONGEST`)
    in about equal parts that end with a sentence, each beginning with the last sentence of the one before it where that
    is short. They hold every character of the text that is not white space, but for paragraphs without a word."""
    found: list[Range] = []
    whole = False  # whether the last passage is made of whole paragraphs, and may grow
    for start, end in paragraphs(text):
        if not _WORD.search(text, start, end):
            continue
        if end - start > LONGEST:
            found += [part for part in _parts(text, start, end) if _WORD.search(text, *part)]
            whole = False
        elif whole and end - found[-1][0] <= USUAL:
            found[-1] = found[-1][0], end
        else:
            found.append((start, end))
            whole = True
    return found


def paragraphs(text: str) -> Iterator[Range]:
    """What stands between blank lines, without the white space around it."""
    start = 0
    for gap in _PARAGRAPH_END.finditer(text):
        yield from _stripped(text, start, gap.start())
        start = gap.end()
    yield from _stripped(text, start, len(text))


def sentences(text: str, start: int = 0, end: int | None = None) -> list[Range]:
    """The sentences of text[start:end], without the white space between them.

    A line's end ends a sentence where the line is no line of wrapped text (under 40 or over 120 characters), and before
    an item of a list or a heading; so do blank lines.
    """
    last = len(text) if end is None else end
    part = text[start:last]
    cuts = {found.end() for found in _SENTENCE_END.finditer(part)} | {
        found.end() for found in _PARAGRAPH_END.finditer(part)
    }
    line, stop = 0, part.find("\n") + 1
    while stop:
        if len(part[line:stop].rstrip()) not in _WRAPPED or _ITEM.match(part, stop):
            cuts.add(stop)
        line, stop = stop, part.find("\n", stop) + 1
    places = [0, *sorted(cuts), len(part)]
    return [one for a, b in zip(places, places[1:], strict=False) for one in _stripped(text, start + a, start + b)]


def sentences_around(text: str, start: int, end: int, within: Range | None = None, beside: int = 0) -> Range:
    """The sentences that characters [start, end) reach into, and so many `beside` them on either side, of the whole
    text or of a part of it."""
    found = sentences(text, *(within or (0, len(text))))
    if not found:
        return start, end
    begins, ends = [one[0] for one in found], [one[1] for one in found]
    first = max(0, bisect_right(begins, start) - 1 - beside)
    last = min(len(found) - 1, bisect_left(ends, end) + beside)
    return min(begins[first], start), max(ends[last], end)


def _parts(text: str, start: int, end: int) -> list[Range]:
    """A long paragraph in parts of about equal length; see `spans_of_passages`."""
    pieces = [piece for one in sentences(text, start, end) for piece in _halved(text, *one)]
    size = (end - start) / -(-(end - start) // USUAL)
    found: list[Range] = []
    begin = 0  # the number of the part's first piece
    for number, (_, stop) in enumerate(pieces):
        last = number == len(pieces) - 1
        full = stop - start >= size * (len(found) + 1)
        too_long = not last and pieces[number + 1][1] - pieces[begin][0] > LONGEST
        if last or full or too_long:
            found.append((pieces[begin][0], stop))
            short = stop - pieces[number][0] <= OVERLAP and number > begin
            begin = number if short and not _grows(pieces, number) else number + 1
    return found


def _grows(pieces: list[Range], number: int) -> bool:
    """Whether a piece and the next are too long for one passage."""
    return number + 1 < len(pieces) and pieces[number + 1][1] - pieces[number][0] > LONGEST


def _halved(text: str, start: int, end: int) -> list[Range]:
    """A sentence; where it is too long, pieces of it, cut between words, and within a word that is too long itself."""
    found = []
    while end - start > LONGEST:
        cut = next((place for place in range(start + USUAL, start, -1) if text[place].isspace()), start + USUAL)
        found += list(_stripped(text, start, cut))
        start = cut
    return [*found, *_stripped(text, start, end)]


def _stripped(text: str, start: int, end: int) -> Iterator[Range]:
    """The range without white space at its ends, if anything is left."""
    while start < end and text[start].isspace():
        start += 1
    while start < end and text[end - 1].isspace():
        end -= 1
    if start < end:
        yield start, end
