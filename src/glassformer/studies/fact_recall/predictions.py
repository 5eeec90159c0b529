"""What the literature predicts, as sentences with numbers that could turn out otherwise. Written before any was tested.

- Geva, Bastings, Filippova & Globerson 2023, "Dissecting recall of factual associations in auto-regressive language
  models": three stages, found by cutting edges of attention and by taking sub-layers away (sections 4 to 6).
- Nanda, Rajamanoharan, Kramár & Shah 2023, "Fact finding": how a model knows the sports of athletes; tokens are joined
  in the first layers, feed-forwards look up, heads read out; the lookup is spread over many neurons.
- Meng, Bau, Andonian & Belinkov 2022, "Locating and editing factual associations in GPT": feed-forwards of middle
  layers at the last token of the subject decide.

- Allen-Zhu & Li 2023, "Physics of language models, part 3.1": facts that are told in one wording are learnt by heart,
  and cannot be extracted; told in many, they can.

Every test is of a statistic that is above 0 where the prediction holds. It is supported if its p value, corrected for
the number of tests in the study (Holm 1979), is below 0.05 and its 95 % interval lies above 0.
"""

from __future__ import annotations

from dataclasses import dataclass

DESTROYED = 0.5
"""A cut destroys a reading if it takes at least this share of what can be read beyond the last token itself."""
KEPT = 0.75
"""A cut leaves a reading alone if at least this share of it is kept."""
EXTRACTED = 0.5
"""Cutting end ← subject in the second half of the layers does at least this share of what cutting it in all does."""
FOLLOWED = 0.5
"""A swapped subspace moves the answer by at least this share of what swapping the whole output does."""
FEW_HEADS = 0.2
"""Of all heads, so many at most carry `CARRIED` of the direct effect."""
CARRIED = 0.8
FEW_NEURONS = 0.01
"""Recall is not distributed if so small a share of the lookup's neurons does half of what all of them do."""
LARGEST = 0.1
"""Nor if one neuron alone does so large a share."""

KNOWN, CLASSES, IN_CLASS = 100, 2, 25
"""A model can be studied on a relation of which it knows so many facts, with so many classes of so many."""
SUBJECTS = 30
"""The fewest subjects of a test."""
RECALLED = 0.95
"""The share of held-out wordings that a GPT trained on people must complete, for each attribute."""


@dataclass(frozen=True)
class Prediction:
    """A sentence, the rule that decides it, and whose it is."""

    part: str
    text: str
    rule: str
    source: str


def _percent(share: float) -> str:
    return f"{100 * share:g} %"


GEVA, NANDA, MENG = "Geva et al. 2023", "Nanda et al. 2023", "Meng et al. 2022"

PREDICTIONS: dict[str, Prediction] = {
    "wordings generalise": Prediction(
        "recall",
        "Who learnt a fact in many wordings completes others too; who learnt it in one does not.",
        "The share of held-out wordings that the GPT completes, mean over attributes, is above that of the GPT of "
        "single wordings, person by person.",
        "Allen-Zhu & Li 2023",
    ),
    "early cut": Prediction(
        "concatenation",
        "Early layers gather the parts of a name at its last token: without edges from there to the earlier tokens, in "
        "the first third of the layers, a probe cannot read the attribute there.",
        f"Class-balanced accuracy after two thirds of the layers falls by at least {_percent(DESTROYED)} of what the "
        "probe reads beyond the last token's own embedding.",
        f"{GEVA}, {NANDA}",
    ),
    "late cut": Prediction(
        "concatenation",
        "The same edges in the second third of the layers are not needed any more.",
        f"At least {_percent(KEPT)} of what is read beyond the last token's own embedding is kept.",
        NANDA,
    ),
    "other edges": Prediction(
        "concatenation",
        "It matters that the edges lead to the name: as many edges to other tokens before it, in the same layers, cost "
        "less.",
        "The probe is right more often after cutting the others, subject by subject.",
        GEVA,
    ),
    "frozen attention": Prediction(
        "concatenation",
        "What is lost is what the edges carry: with all other attention of the last token held as it was, the early "
        "cut destroys the reading too.",
        f"As for the early cut, at least {_percent(DESTROYED)}.",
        NANDA,
    ),
    "bare names": Prediction(
        "concatenation",
        "The name alone, without a prompt, is put together in the same way.",
        f"As for the early cut, at least {_percent(DESTROYED)}, of names that stand alone.",
        NANDA,
    ),
    "beyond tokens": Prediction(
        "lookup",
        "After two thirds of the layers, more can be read at the last token of the name than its tokens tell.",
        "The probe of the states is right more often than one of the bag of the name's tokens.",
        NANDA,
    ),
    "beyond random weights": Prediction(
        "lookup",
        "It is what the model learnt: the same network with random weights does not show it.",
        "The probe is right more often than one of the same layer in a network with random weights.",
        "Hewitt & Liang 2019",
    ),
    "feed-forward over attention": Prediction(
        "lookup",
        "Feed-forwards look facts up: putting another subject's feed-forward outputs at the name costs more than "
        "putting its attention outputs.",
        "The logit difference falls further, mean over the layer windows from the second on within the first two "
        "thirds of the layers.",
        f"{GEVA}, {MENG}",
    ),
    "beyond noise": Prediction(
        "lookup",
        "It is the content that counts: changes of the same size in a random direction cost less.",
        "In the same windows, another subject's feed-forward outputs lower the logit difference further than random "
        "directions of the same length.",
        MENG,
    ),
    "ranked neurons": Prediction(
        "neurons",
        "Some of the lookup's neurons serve these facts more than others of like size.",
        "The neurons that make up k50 (ranked on the other half of the facts) cost more than as many of like norm.",
        NANDA,
    ),
    "specific": Prediction(
        "neurons",
        "They serve these facts, and not everything.",
        "Taking them away costs a larger share of the logit difference here than in unrelated facts.",
        NANDA,
    ),
    "later half": Prediction(
        "extraction",
        "The end of the text takes the attribute from the subject in upper layers.",
        "Cutting end ← subject in the second half of the layers lowers the logit difference further than in the first.",
        f"{GEVA}, {NANDA}",
    ),
    "other sources": Prediction(
        "extraction",
        "It takes it from the subject: as many edges to other tokens, in the same layers, cost less.",
        "Cutting end ← subject in the second half lowers the logit difference further than cutting as many others.",
        GEVA,
    ),
    "most of it": Prediction(
        "extraction",
        "Most of what passes from the subject to the end passes there.",
        f"Cutting in the second half does at least {_percent(EXTRACTED)} of what cutting in all layers does.",
        GEVA,
    ),
    "few heads": Prediction(
        "extraction",
        "Few heads read the attribute out.",
        f"{_percent(CARRIED)} of the positive direct effects of heads on the logit difference are those of at most "
        f"{_percent(FEW_HEADS)} of all heads.",
        f"{GEVA}, {NANDA}",
    ),
    "answer follows": Prediction(
        "extraction",
        "What heads bring to the end lies in the directions that the answers are read from: swapped there alone, with "
        "another fact's, the answer follows.",
        f"The swap moves logit(other answer) − logit(own) by at least {_percent(FOLLOWED)} of what swapping the whole "
        "output of attention does, in the second half of the layers.",
        f"{GEVA}, {NANDA}",
    ),
    "beyond random subspace": Prediction(
        "extraction",
        "Random subspaces of as many dimensions do not carry it.",
        "The swap in the answers' subspace moves the answer further than in random ones.",
        "Makelov et al. 2023",
    ),
    "no single neuron": Prediction(
        "distributed",
        "No neuron is the fact's.",
        f"The best single neuron, chosen on one half of the facts, does less than {_percent(LARGEST)} of what all of "
        "the lookup's neurons do, on the other half.",
        NANDA,
    ),
    "many neurons": Prediction(
        "distributed",
        "A handful of neurons is not enough.",
        f"k50, the smallest share of the lookup's neurons whose resampling loses half of the effect of all, is above "
        f"{_percent(FEW_NEURONS)}.",
        NANDA,
    ),
    "ablations agree": Prediction(
        "distributed",
        "That does not depend on how neurons are taken away.",
        f"k50 is above {_percent(FEW_NEURONS)} as well with zeros, and with means.",
        "Heimersheim & Nanda 2024",
    ),
}


def names_of(part: str) -> list[str]:
    """The tests of a part."""
    return [name for name, each in PREDICTIONS.items() if each.part == part]
