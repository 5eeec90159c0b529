"""Names in English text, by their capitals: "Leonardo da Vinci", "the University of Chicago", "NASA", "Apollo 11"."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from glassformer.factuality.numerals import ORDINALS, SMALL

_TOKEN = re.compile(r"(?:[A-Z]\.){2,}|[^\W_]+(?:['’.\-&/][^\W_]+)*\.?", re.UNICODE)
PARTICLES = frozenset(
    re.findall(
        r"\S+",
        "of the de la le les du des del della der den van von da di do dos das al el bin ibn ben y zu zur d' &",
    )
)
_TITLES = frozenset(
    re.findall(
        r"\S+",
        "mr mrs ms miss dr prof professor sir dame lord lady king queen prince princess emperor empress pope "
        "saint st president general colonel captain bishop archbishop cardinal chancellor senator governor judge "
        "justice",
    )
)
_SUFFIXES = frozenset(re.findall(r"\S+", "jr sr inc ltd co corp plc"))
# What may end with a point within a name; another point ends it.
_JOINING = _TITLES | _SUFFIXES | frozenset(re.findall(r"\S+", "u.s u.k u.n e.u ft mt"))
# One of these alone is no surname: "University" does not name the University of Chicago.
_GENERIC = frozenset(
    re.findall(
        r"\S+",
        "university college school institute museum church company corporation association society council "
        "committee commission court party union league club team river lake sea ocean mountain mountains island "
        "islands valley park street road bridge city county state states kingdom empire republic province region "
        "district war battle treaty act law bowl cup prize award house palace castle hospital library center "
        "centre building tower station airport army navy government parliament assembly department ministry "
        "office conference region north south east west northern southern eastern western new great first second "
        "world national international american british",
    )
)
_ORDINARY = frozenset(
    re.findall(
        r"\S+",
        "a about above according across after again against all almost along already also although always among "
        "an and another any anyone around as at away back based be because become before behind being below "
        "besides between beyond both but by can children common cities companies countries currently despite did "
        "do does doctors due during each early either enough even eventually every everyone everything except "
        "families few finally first following for former fortunately four five from further generally get given "
        "god had half has have having he hence her here his how however hundreds i if in indeed initially inside "
        "instead into is it its just kings large last later latter least less like local long many may maybe "
        "members men might mixed modern more moreover most much must my near nearly neither never nevertheless "
        "next nine no nobody none nor not nothing notably now of off often old on once one only onto or "
        "originally other others otherwise our out outside over own particularly people per perhaps players "
        "plants possibly prior private public rather recent recently scientists seven several she should "
        "similarly since six small so some someone sometimes soon species specifically still students "
        "subsequently such teachers ten than that the their them then there therefore these they this those "
        "though thousands three through throughout thus to today together too toward towards two typically unlike "
        "under until up upon us use used using usually various very was water we well were what when whenever "
        "where whereas wherever whether which while who whole whom whose why will with within without women "
        "workers would years yes yet you young your",
    )
)
_NUMBER_WORDS = SMALL.keys() | ORDINALS.keys()
_NUMBER = re.compile(r"\s(?:[1-9]\d{0,2}|[IVX]+)(?![\w%.,]\d|\w|%)")
_END = re.compile(r"[.!?:][\"'”’)\]]*\s+[\"'“‘(\[]*$|\n\s*[\"'“‘(\[]*$")


@dataclass(frozen=True)
class Name:
    """Characters [start, end). `doubtful`: one word at the beginning of a sentence, whose capital says nothing."""

    start: int
    end: int
    doubtful: bool = False


def find_names(text: str) -> list[Name]:
    """All names of a text, in its order.

    A name is a run of capitalised words, joined by particles ("of", "van der") and followed by a number of up to three
    digits ("Super Bowl 50"). The first word of a sentence is a part of one only where it is not an ordinary word; alone
    it is `doubtful`, unless its shape is that of no ordinary word (NASA, iPhone, O'Neill).
    """
    tokens = [(match.start(), match.end()) for match in _TOKEN.finditer(text)]
    found = []
    place = 0
    while place < len(tokens):
        if not _capital(text, tokens[place]):
            place += 1
            continue
        last = _last(text, tokens, place)
        if one := _name(text, tokens[place : last + 1]):
            found.append(one)
        place = last + 1
    return found


def bare(name: str) -> list[str]:
    """The words of a name in small letters, without accents, articles, titles, points and a possessive ending."""
    folded = "".join(c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c))
    folded = re.sub(r"['’]s?(?=\W|$)", "", folded.lower()).replace(".", "")
    words = [word for word in re.findall(r"[^\W_]+", folded) if word not in _SUFFIXES]
    while len(words) > 1 and (words[0] in _TITLES or words[0] == "the"):
        words = words[1:]
    return words


def same_name(one: str, other: str) -> bool:
    """Whether two names may mean the same: equal, one the surname of the other, without its middle names, or initials.

    So are singular and plural, and a country and what is of it ("Australian"). "Tesla" is "Nikola Tesla", "John F.
    Kennedy" is "John Kennedy", "J. S. Bach" is "Johann Sebastian Bach", "NFL" is "National Football League";
    "University" is not "Harvard University", and "New York" not "New York Giants".
    """
    first, second = sorted((bare(one), bare(other)), key=len)
    if not first or not second:
        return False
    if len(first) == len(second) and all(map(_form, first, second)):
        return True
    if "".join(first) == "".join(second) or _is_initials(first, second):
        return True
    if len(first) == 1:
        return first[0] == second[-1] and first[0] not in _GENERIC and len(first[0]) > 2 and not first[0].isdigit()
    if second[-len(first) :] == first:
        return True
    if len(first) == len(second) and first[-1] == second[-1] and all(map(_initial, first[:-1], second[:-1])):
        return True
    middle = len(first) == 2 and len(second) == 3 and "of" not in second
    return middle and first[0] == second[0] and first[1] == second[-1] and len(second[1]) == 1


def part_of(one: str, other: str) -> bool:
    """Whether all words of a name are words of another: "Synechococcus" and "Synechococcus DNA"."""
    words = set(bare(one)) - PARTICLES
    return bool(words) and words <= set(bare(other))


def _form(one: str, other: str) -> bool:
    """Whether two words are equal but for a plural's or an adjective's ending: "Mongols", "Australian", "Germany"."""
    short, long = sorted((one, other), key=len)
    return one == other or (len(short) >= 3 and long[len(short) :] in ("s", "n", "y", "es") and long.startswith(short))


def _initial(one: str, other: str) -> bool:
    """Whether two forenames are equal, or one is the first letter of the other: "J." and "Johann"."""
    return one == other or (min(len(one), len(other)) == 1 and one[0] == other[0])


def _is_initials(short: list[str], long: list[str]) -> bool:
    letters = "".join(short)
    if len(short) not in (1, len(letters)) or len(letters) < 2 or len(long) < 2:
        return False
    content = [word for word in long if word not in PARTICLES]
    return letters in ("".join(word[0] for word in content), "".join(word[0] for word in long))


def _capital(text: str, token: tuple[int, int]) -> bool:
    word = text[token[0] : token[1]]
    return (word[0].isupper() or (word[0].islower() and any(c.isupper() for c in word[1:3]))) and word != "I"


def _last(text: str, tokens: list[tuple[int, int]], place: int) -> int:
    """The number of the last token of the name that begins at `place`."""
    last = place
    while last + 1 < len(tokens):
        if _ends(text, tokens[last], tokens[last + 1]):
            break
        if _capital(text, tokens[last + 1]):
            last += 1
            continue
        reach = last + 1
        while reach < len(tokens) and reach <= last + 2 and text[slice(*tokens[reach])].lower() in PARTICLES:
            if reach + 1 == len(tokens) or _ends(text, tokens[reach], tokens[reach + 1]):
                break
            reach += 1
        if reach == last + 1 or reach >= len(tokens) or not _capital(text, tokens[reach]):
            break
        if text[slice(*tokens[last + 1])].lower() == "the":  # "gave Paris the Louvre" are two names
            break
        last = reach
    return last


def _ends(text: str, left: tuple[int, int], right: tuple[int, int]) -> bool:
    """Whether a name cannot go on over what stands between two tokens."""
    between = text[left[1] : right[0]]
    word = text[left[0] : left[1]]
    if word.endswith(("'s", "’s")) or word.endswith(".") and text[slice(*right)].lower() in _ORDINARY:
        return True
    if word.endswith(".") and len(word) > 2 and word.lower().rstrip(".") not in _JOINING:
        return True
    return between not in (" ", "\u00a0", " & ", "")


def _name(text: str, tokens: list[tuple[int, int]]) -> Name | None:
    start = tokens[0][0]
    first_word = text[slice(*tokens[0])]
    opens = not text[:start].strip(" \n\t\"'“‘([") or bool(_END.search(text[:start]))
    ordinary = first_word.lower() in _ORDINARY or (opens and first_word.lower() in _NUMBER_WORDS)
    if ordinary and (opens or len(tokens) == 1):
        tokens = tokens[1:]
        while tokens and text[slice(*tokens[0])].lower() in PARTICLES:
            tokens = tokens[1:]
        if not tokens:
            return None
        start, opens = tokens[0][0], False
    end = tokens[-1][1]
    last_word = text[slice(*tokens[-1])]
    if last_word.endswith(("'s", "’s")):
        end -= 2
    elif last_word.endswith(".") and "." not in last_word[:-1] and last_word.lower()[:-1] not in _SUFFIXES:
        end -= 1
    if not last_word.endswith(".") and (number := _NUMBER.match(text, end)):
        end = number.end()
    unusual = any(c.isupper() for c in first_word[1:]) or any(c.isdigit() for c in text[start:end])
    return Name(start, end, opens and len(tokens) == 1 and not unusual and end == tokens[-1][1])
