"""The sections of a recipe: data, text, training, evaluation. Each key's meaning is in its section's docstring."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Literal, get_args

from glassformer.errors import InputError, did_you_mean
from glassformer.text.documents import Split
from glassformer.text.questions import Occurrence
from glassformer.training.schedules import Schedule

Task = Literal[
    "translation",
    "language-modeling",
    "masked-language-modeling",
    "classification",
    "question-answering",
    "summarization",
]
TASKS: tuple[str, ...] = get_args(Task)
Negative = Literal["paragraph", "nearest", "value", "opposite"]


def _at_least(least: int, name: str, value: float) -> None:
    if value < least:
        raise InputError(f"'{name}' must be at least {least}, got {value}.")


@dataclass(frozen=True)
class Data:
    """[data]: what is read, relative to the data root. `train`, `valid` and `test` are files, or lists of them.

    Translation and summarization read pairs: prefixes (`P` with `source = "en"`, `target = "de"` reads `P.en` and
    `P.de`, aligned by line), or TSV / JSON Lines files with `fields` naming two columns. `kind = "dates"` is the corpus
    that comes with the package and needs no files. Classification reads a text and its label, the two columns `fields`
    (by default "text" and "label"); `labels` gives the names of the labels in their order, by how the data write them.
    Question answering reads SQuAD's JSON or JSON Lines (`text/questions.py`, with `occurrence`).

    Language models read documents (`text/documents.py`): plain text cut as `documents` says, or the column `column`,
    and lists of both; a file may be followed by a share of it, `"input.txt[0:0.9]"`. Folders of token shards
    (`text/shards.py`, made by `glassformer tokenize`) bring their tokenizer, and a share of one is one of its
    documents. `context` is how many tokens they see at once. `kind = "people"` makes documents about the people of the
    one file `train` (`text/people.py`), about so many `people` (0 all), `variants` for each, drawn by `people_seed`.

    `max_tokens` is the longest text, or question with its piece of a context; 0 is what the model can read (384 for
    question answering). What is longer is refused, or cut off at the end with `truncate`; contexts of questions are
    read in pieces, `stride` tokens from one to the next. `train_titles`, `valid_titles` and `test_titles` name articles
    of the question files: a split with such a list reads these alone, one without reads those that are in no list.
    `negatives` adds so many times the training questions as questions without an answer, made by rule: each beside
    another paragraph of its article, or in turn as `negative_kinds` says (`training/jobs/unanswerable.py`). `prompt` is
    what a decoder reads before it summarizes, with {text} for the document.
    """

    kind: Literal["pairs", "dates", "people"] = "pairs"
    train: str | list[str] = ""
    valid: str | list[str] = ""
    test: str | list[str] = ""
    source: str = ""
    target: str = ""
    fields: list[str] | list[int] | None = None
    labels: dict[str, str] = field(default_factory=dict)
    documents: Split = "file"
    column: str = "text"
    context: int = 256
    max_tokens: int = 0
    stride: int = 128
    truncate: bool = False
    occurrence: Occurrence = "given"
    train_titles: list[str] = field(default_factory=list)
    valid_titles: list[str] = field(default_factory=list)
    test_titles: list[str] = field(default_factory=list)
    negatives: float = 0.0
    negative_kinds: list[Negative] = field(default_factory=lambda: ["paragraph"])
    prompt: str = ""
    people: int = 0
    variants: int = 24
    people_seed: int = 1

    def __post_init__(self) -> None:
        _at_least(0, "people", self.people)
        _at_least(1, "variants", self.variants)
        _at_least(2, "context", self.context)
        _at_least(1, "stride", self.stride)
        _at_least(0, "max_tokens", self.max_tokens)
        _at_least(0, "negatives", self.negatives)
        if not all(isinstance(name, str) for name in self.labels.values()):
            raise InputError(f"'labels' must give each label a name, as in {{0 = \"negative\"}}, got {self.labels}.")
        if self.prompt and self.prompt.count("{text}") != 1:
            raise InputError(f"'prompt' must hold {{text}} once, where the document goes; got {self.prompt!r}.")

    def paths(self, split: str) -> list[str]:
        """The files of "train", "valid" or "test". `InputError` where the recipe names none."""
        given = getattr(self, split)
        paths = [given] if isinstance(given, str) else list(given)
        if not paths or not all(paths):
            raise InputError(f"The recipe names no {split} data: set 'data.{split}' (--data.{split} P).")
        return paths

    def path(self, split: str) -> str:
        """The one file of a split, for tasks that read one. `InputError` where there are several, or none."""
        paths = self.paths(split)
        if len(paths) > 1:
            raise InputError(f"'data.{split}' must be one file for this task, got {len(paths)}.")
        return paths[0]


@dataclass(frozen=True)
class Text:
    """[text]: from text to ids. `lowercase` and `moses` are the pipeline stored with the model.

    `tokenizer` is trained on the training data, unless the training starts from a model, which brings its own.
    "wordpiece" is BERT's, with its frame of [CLS] and [SEP] and its [MASK]; `lowercase` belongs to it then.
    """

    tokenizer: Literal["bpe", "word", "character", "wordpiece"] = "bpe"
    vocab_size: int = 8000
    min_frequency: int = 2
    lowercase: bool = False
    moses: bool = False


@dataclass(frozen=True)
class Training:
    """[training]: the loop.

    A step takes `accumulate` batches of at most `batch_tokens` tokens each (rows × longest sentence, padding
    included); fewer in the first `batch_ramp` steps, beginning with one. `learning_rate` is the peak, reached after
    `warmup` steps; see `schedules.py` for `cooldown` and `floor`. `muon_rate` multiplies it for Muon's matrices.
    `evaluate_every`, `checkpoint_every` and `log_every` count steps; `checkpoint_every` 0 means as `evaluate_every`.
    `patience` ends the training after that many evaluations without a better one, 0 never; `minutes` ends it after
    that time, 0 never. `keep` checkpoints stay (at least those that are averaged), and the best one. `samples` texts
    with what the model makes of them are shown at each evaluation. `consistency` above 0 reads each batch twice, with
    other units dropped, and asks both readings to agree (R-Drop: Wu et al. 2021, who take 5 for translation and 1 for
    classification; no other task has it), for twice the time. `precision`, `compile` and `device` "auto" follow the
    rules in `training/precision.py`. `recompute` keeps the input of each block alone for the backward pass, which runs
    the block again: less memory for a third more time. A resumed run is equal to the bit on a CPU without `compile`:
    compiled kernels may depend on the first batch that a process saw.
    """

    steps: int = 8000
    batch_tokens: int = 4096
    accumulate: int = 1
    optimizer: Literal["adam", "adamw", "muon"] = "adam"
    learning_rate: float = 1e-3
    warmup: int = 2000
    schedule: Schedule = "inverse-sqrt"
    cooldown: float = 0.2
    floor: float = 0.0
    batch_ramp: int = 0
    muon_rate: float = 1.0
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-9
    weight_decay: float = 0.0
    clip: float = 0.0
    label_smoothing: float = 0.1
    consistency: float = 0.0
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    compile: Literal["auto"] | bool = "auto"
    device: str = "auto"
    recompute: bool = False
    seed: int = 42
    patience: int = 0
    minutes: float = 0.0
    evaluate_every: int = 500
    checkpoint_every: int = 0
    keep: int = 5
    log_every: int = 50
    samples: int = 3

    def __post_init__(self) -> None:
        for name in ("steps", "batch_tokens", "accumulate", "evaluate_every", "keep", "log_every"):
            _at_least(1, name, getattr(self, name))
        for name in (
            *("warmup", "weight_decay", "clip", "patience", "minutes", "checkpoint_every", "samples", "seed"),
            *("cooldown", "floor", "batch_ramp", "consistency"),
        ):
            _at_least(0, name, getattr(self, name))
        if self.cooldown > 1 or self.floor > 1 or self.muon_rate <= 0:
            raise InputError("'cooldown' and 'floor' must be at most 1, and 'muon_rate' above 0.")
        if not 0 <= self.label_smoothing < 1:
            raise InputError(f"'label_smoothing' must be in [0, 1), got {self.label_smoothing}.")
        if self.learning_rate <= 0 or self.eps <= 0 or not all(0 <= beta < 1 for beta in self.betas):
            raise InputError("'learning_rate' and 'eps' must be above 0 and 'betas' in [0, 1).")

    @property
    def save_every(self) -> int:
        """Steps from one regular checkpoint to the next."""
        return self.checkpoint_every or self.evaluate_every


@dataclass(frozen=True)
class Evaluation:
    """[evaluation]: how the model is judged, during training by `metric` and greedily, afterwards with `beam`.

    Which metrics there are depends on the task: `METRICS`. `examples` is how many of the validation's texts the metric
    is measured on during training, 0 all; the loss is always over all.

    `tokenized` says that the data files hold tokens already, as the pipeline of [text] makes them: training reads them
    as they are, and the tokens themselves are scored (sacreBLEU `tok:none`). `average` is how many of the last
    checkpoints the finished model is the mean of; 1 takes the best checkpoint by `metric`.
    """

    metric: Literal["loss", "bleu", "exact_match", "accuracy", "macro_f1", "f1", "rouge1", "rouge2", "rougeL"] = "loss"
    examples: int = 0
    beam: int = 5
    length_penalty: float = 1.0
    tokenized: bool = False
    batch_tokens: int = 8192
    average: int = 1

    def __post_init__(self) -> None:
        for name in ("beam", "batch_tokens", "average"):
            _at_least(1, name, getattr(self, name))
        _at_least(0, "examples", self.examples)


@dataclass(frozen=True)
class Parallel:
    """[parallel]: how the work of a training falls into processes. The product of the five is their number, which is
    said to whatever starts them: `torchrun --nproc-per-node 2 -m glassformer train RECIPE --parallel.data 2`.

    `data` processes each take a share of every batch's rows and have the whole network; `shard` do the same and keep a
    share of every parameter, gradient and moment, which they gather block by block as they need them (FSDP2: Zhao et
    al. 2023, Rajbhandari et al. 2020). Both at once are `data` groups of `shard` processes.

    `tensor` processes have the same rows and a part of every block's heads and hidden units (Shoeybi et al. 2019):
    they divide the numbers of heads, of key-value heads and d_ff. `context` processes have the same rows and each a run
    of their positions, and gather keys and values (a decoder's: Grattafiori et al. 2024, section 3.3.2). `pipeline`
    processes have the same rows and each a run of the blocks (Huang et al. 2019); they do not go with `context`.

    The batches are those of one process, and so is the loss, but for rounding and for dropout, which draws anew for
    every process that has other rows or positions; within a tensor group, what acts on heads and hidden units drops
    alike in each part. A run may be resumed on another number of processes.
    """

    data: int = 1
    shard: int = 1
    tensor: int = 1
    pipeline: int = 1
    context: int = 1

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):
            _at_least(1, item.name, getattr(self, item.name))

    @property
    def processes(self) -> int:
        """The product of the five."""
        return math.prod(dataclasses.astuple(self))

    @property
    def whole(self) -> bool:
        """Whether every process has the whole network and whole rows: at most `data` is more than 1."""
        return self.processes == self.data

    def __str__(self) -> str:
        return " × ".join(f"{name} {size}" for name, size in dataclasses.asdict(self).items() if size > 1)


METRICS: dict[str, tuple[str, ...]] = {
    "translation": ("loss", "bleu", "exact_match"),
    "language-modeling": ("loss", "accuracy"),
    "masked-language-modeling": ("loss", "accuracy"),
    "classification": ("loss", "accuracy", "macro_f1"),
    "question-answering": ("loss", "exact_match", "f1"),
    "summarization": ("loss", "rouge1", "rouge2", "rougeL"),
}
"""What can choose the best checkpoint of each task. In classification "accuracy" is that of texts, else of tokens."""


_KINDS: dict[str, tuple[str, ...]] = {
    "dates": ("translation",),
    "people": ("language-modeling", "masked-language-modeling"),
}


def check_kind(task: str, kind: str) -> None:
    """`InputError` for a corpus that is made for other tasks."""
    if task not in _KINDS.get(kind, (task,)):
        raise InputError(f"'data.kind' = \"{kind}\" is for {' and '.join(_KINDS[kind])}, this recipe is for {task}.")


def check_metric(task: str, metric: str) -> None:
    """`InputError` for a metric that a task does not have."""
    if metric not in METRICS[task]:
        raise InputError(
            f"'evaluation.metric' must be one of {', '.join(METRICS[task])} for {task}, got {metric!r}."
            f"{did_you_mean(metric, METRICS[task])}"
        )


def check_consistency(task: str, consistency: float, parallel: Parallel) -> None:
    """`InputError` where two readings are to agree in a task that has no such objective, or in parts of a network."""
    if consistency and not parallel.whole:
        raise InputError("'training.consistency' goes with 'parallel.data' alone: it reads the whole network twice.")
    if consistency and task not in ("translation", "classification"):
        raise InputError(f"'training.consistency' is for translation and classification, this recipe is for {task}.")
