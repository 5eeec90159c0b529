"""Linear probes: what a hyperplane can read off the states of a network, beside what it reads without the network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from glassformer.errors import InputError, did_you_mean
from glassformer.interpret.controls import bag, controls_of
from glassformer.interpret.discriminants import Space, held_out, hits
from glassformer.interpret.trace import Trace
from glassformer.tasks.intervals import Interval, bootstrap

FOLDS = 5

Label = Hashable
Control = Trace | Tensor | Sequence[str] | Sequence[Sequence[int]]


@dataclass(frozen=True)
class Score:
    """Of held-out rows, the share that is read rightly: `balanced` is the mean over the classes, by their own shares.

    Intervals are of 95 %, bootstraps over groups (`tasks.intervals.bootstrap`).
    """

    balanced: float
    balanced_interval: Interval
    accuracy: float
    accuracy_interval: Interval


@dataclass(frozen=True)
class Reading:
    """The probe at one place: its held-out `score`, that of each control, and the ridge λ of the probe that is kept.

    `shuffled` are the balanced accuracies of as many shuffles of the labels, by the same procedure.
    """

    place: str
    score: Score
    shuffled: tuple[float, ...]
    controls: Mapping[str, Score]
    strength: float


@dataclass(frozen=True)
class Report:
    """What a probe reads, place by place; `print` shows a table, `to_json` gives what `json.dumps` takes."""

    readings: tuple[Reading, ...]
    classes: Mapping[Any, int]
    n: int
    n_groups: int
    split: str
    folds: int
    seed: int
    left_out: Mapping[Any, int] = field(default_factory=dict)
    """Rows of each class that is in too few groups."""

    def to_json(self) -> dict[str, Any]:
        """All numbers, with the names of the fields; classes are written as strings."""
        named = {
            name: {str(label): count for label, count in counts.items()}
            for name, counts in (("classes", self.classes), ("left_out", self.left_out))
        }
        return {**asdict(self), **named}

    def __str__(self) -> str:
        names = list(dict.fromkeys(name for reading in self.readings for name in reading.controls))
        shuffles = len(self.readings[0].shuffled)
        rows = [["place", "balanced", "accuracy", *([f"{shuffles} shuffles"] * bool(shuffles)), *names]]
        for reading in self.readings:
            score = reading.score
            row = [reading.place, _shown(score.balanced, score.balanced_interval)]
            row.append(_shown(score.accuracy, score.accuracy_interval))
            if shuffles:
                spread = Interval(min(reading.shuffled), max(reading.shuffled))
                row.append(_shown(sum(reading.shuffled) / shuffles, spread))
            controls = [reading.controls[name] for name in names]
            rows.append(row + [_shown(each.balanced, each.balanced_interval) for each in controls])
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([*self._about(), *lines])

    def _about(self) -> list[str]:
        classes = ", ".join(f"{label} {count}" for label, count in self.classes.items())
        held = f"{self.n_groups} groups, none of them in two folds" if self.split == "subject" else "split by rows"
        rare = ", ".join(f"{label} {count}" for label, count in self.left_out.items())
        return [
            f"{len(self.classes)} classes: {classes}",
            *([f"left out, in fewer than {self.folds} groups: {rare}"] if rare else []),
            f"n = {self.n}, {held}; {self.folds} folds; balanced accuracy by chance {1 / len(self.classes):.3f}, "
            f"accuracy of the largest class {max(self.classes.values()) / self.n:.3f}",
            "[ ]: 95 % intervals, of shuffled labels the least and the most; controls are balanced accuracies",
        ]


@dataclass(frozen=True, eq=False)
class Probe:
    """Linear readers of labels, one a place, fitted to all rows; and how well the same procedure reads others."""

    labels: tuple[Any, ...]
    weights: tuple[Float[Tensor, "C D"], ...] = field(repr=False)
    biases: tuple[Float[Tensor, C], ...] = field(repr=False)
    results: Report = field(repr=False)

    def report(self) -> Report:
        """The scores on held-out rows, with intervals and controls."""
        return self.results

    def predict(self, x: Float[Tensor, "n D"], place: int | str | None = None) -> list[Any]:
        """The label that is read off each row: the largest of x · w + b. `place` is a number or name of several."""
        number = self._number(place)
        weight = self.weights[number]
        if x.ndim != 2 or x.shape[1] != weight.shape[1]:
            raise InputError(f"'predict' wants [n, {weight.shape[1]}], got {list(x.shape)}.")
        scores = x.detach().cpu().double() @ weight.T + self.biases[number]
        return [self.labels[index] for index in scores.argmax(-1).tolist()]

    def direction(self, label: Label, place: int | str | None = None) -> Float[Tensor, D]:
        """Where a label's score grows fastest against the mean of all labels' scores: its gradient in x, in fp32."""
        if label not in self.labels:
            raise InputError(f"the probe knows no label {label!r}; it knows {', '.join(map(repr, self.labels))}.")
        weight = self.weights[self._number(place)]
        return (weight[self.labels.index(label)] - weight.mean(0)).float()

    def _number(self, place: int | str | None) -> int:
        places = [reading.place for reading in self.results.readings]
        if place is None and len(places) == 1:
            return 0
        if place in places:
            return places.index(str(place))
        if isinstance(place, int) and -len(places) <= place < len(places):
            return place
        hint = did_you_mean(place, places) if isinstance(place, str) else ""
        raise InputError(f"say 'place', one of {', '.join(places)}, or its number; got {place!r}.{hint}")


def probe(
    x: Trace | Float[Tensor, "*L n D"],
    labels: Sequence[Label] | Tensor,
    *,
    groups: Sequence[Hashable] | None = None,
    split: Literal["subject", "row"] = "subject",
    at: str | None = None,
    controls: Mapping[str, Control] | None = None,
    shuffles: int = 20,
    folds: int = FOLDS,
    seed: int = 0,
) -> Probe:
    """Read labels off states by linear discriminants, in each place of `x`, and say how well and against what.

    `x` is a trace (`at` says which expression, if it keeps several of states at one position), or states [n, D], or
    [L, n, D] of several places. Each place is probed by itself:

    - The probe: features are standardised, then label c scores x · w + b with w = (Σ + λ I)⁻¹ m, b = − m · w / 2, where
      m is the mean of class c and Σ the covariance within classes. Classes count alike, whatever their sizes. It is
      least squares on one-hot labels with a ridge λ and thresholds for equal classes (Hastie, Buja & Tibshirani 1995,
      "Penalized Discriminant Analysis"): closed, so that equal arguments give equal numbers.
    - Held out: `folds` parts of like class counts; each is read by a probe of the others, whose λ (of `STRENGTHS`) is
      chosen among these others, by balanced accuracy. With `split` "subject" all rows of a group are in one part, so
      that no subject is in training and test; `groups` are by default the subjects of a trace's facts.
    - Controls: `shuffles` of the labels, within each part and among groups that have one label, go through the same
      procedure (Hewitt & Liang 2019). `controls` maps names to what is read instead of `x`: a trace or states of a
      network with random weights, or a bag of words (texts, split at spaces) or of tokens (lists of ids, or a tensor
      of ids padded with negative ones), as counts of those that are in two groups at least. Unless they are given, a
      trace of facts is held against the same network with random weights and a bag of the subjects' tokens.

    Classes in fewer groups than there are folds are left out with their rows, as the report says.

    Raises `InputError` for lengths that differ, numbers that are not finite, and where fewer than two classes are left.
    """
    if isinstance(x, Trace):
        at = at or _fitting(x)
    states, places = features(x, at)
    classes, truth = _classes(labels, states.shape[1])
    if groups is None and split == "subject":
        groups = _subjects(x)
    everyone = _members(groups if split == "subject" else None, split, states.shape[1])
    kept, left_out = _enough(classes, truth, everyone, folds)
    if controls is None:
        controls = controls_of(x, at) if isinstance(x, Trace) and at is not None else {}
    read_too = {name: _control(name, given, everyone, states, at)[:, kept] for name, given in controls.items()}
    classes, truth = _classes([classes[index] for index in truth[kept].tolist()], len(kept))
    states, members = states[:, kept], _members(everyone[kept].tolist(), split, len(kept))
    parts = _parts(truth, members, folds, seed)
    shuffled = [_shuffled(truth, members, parts, seed + number) for number in range(1, shuffles + 1)]
    answers = torch.stack([truth, *shuffled])
    beside: dict[str, list[Score]] = {}
    for name, given in read_too.items():
        read = [held_out(one, truth[None], parts)[0][0] for one in given]
        beside[name] = [_score(found, truth, members, seed) for found in read]
    readings, fits = [], []
    for number, (place, rows) in enumerate(zip(places, states, strict=True)):
        predicted, strength = held_out(rows, answers, parts)
        score = _score(predicted[0], truth, members, seed)
        chance = tuple(_balanced(row, own) for row, own in zip(predicted[1:], shuffled, strict=True))
        own = {name: each[number if len(each) > 1 else 0] for name, each in beside.items()}
        readings.append(Reading(place, score, chance, own, strength))
        fits.append(Space(rows).reader(truth, len(classes), strength))
    counts = Counter(truth.tolist())
    named = {label: counts[index] for index, label in enumerate(classes)}
    about = Report(tuple(readings), named, len(truth), int(members.max()) + 1, split, folds, seed, left_out)
    return Probe(classes, tuple(weight for weight, _ in fits), tuple(bias for _, bias in fits), about)


def features(x: Trace | Tensor, at: str | None = None) -> tuple[Float[Tensor, "L n D"], list[str]]:
    """States of each place in fp64 on the CPU, and the names of the places."""
    if isinstance(x, Trace):
        x, places = _kept(x, at)
    else:
        if not isinstance(x, Tensor) or x.ndim not in (2, 3) or not x.is_floating_point():
            raise InputError(f"a probe reads a trace or states [n, D] or [L, n, D], got {_kind(x)}.")
        x = x if x.ndim == 3 else x[None]
        places = [f"states {number}" for number in range(len(x))] if len(x) > 1 else ["states"]
    if not torch.isfinite(x).all():
        raise InputError("a probe reads finite numbers; the states have NaN or infinity among them.")
    return x.detach().cpu().double(), places


def _kept(trace: Trace, at: str | None) -> tuple[Tensor, list[str]]:
    """Of a trace, the expression to read: the only one with one vector a text, or the one that is asked for."""
    at = at or _fitting(trace)
    states = trace.stack(at)
    if states.ndim != 3:
        raise InputError(f"a probe reads one vector a text; '{at}' gives {list(states.shape[1:])}: name one position.")
    expression = trace.kept.get(at)
    return states, list(expression.names) if expression is not None else [f"{at} {n}" for n in range(len(states))]


def _fitting(trace: Trace) -> str:
    """The only expression of a trace that can be probed."""
    fit = [text for text in trace.expressions if trace.kept[text].of is None and trace.stack(text).ndim == 3]
    if len(fit) != 1:
        found = ", ".join(f"'{text}'" for text in fit) or "none"
        raise InputError(f"a probe reads one vector a text; of what is traced, {found} fit: say which by 'at'.")
    return fit[0]


def _kind(x: Any) -> str:
    return f"{x.dtype} {list(x.shape)}" if isinstance(x, Tensor) else type(x).__name__


def _subjects(x: Any) -> Sequence[Hashable]:
    given = x.inputs.given if isinstance(x, Trace) else None
    if isinstance(given, Sequence) and len(given) and all(hasattr(each, "subject") for each in given):
        return [each.subject for each in given]
    raise InputError(
        "split='subject' keeps each subject in one fold: give the subject of every row as 'groups' (a trace of facts "
        "has them), or say split='row' if no two rows are about the same."
    )


def _classes(labels: Sequence[Label] | Tensor, n: int) -> tuple[tuple[Any, ...], Int[Tensor, n]]:
    values = labels.tolist() if isinstance(labels, Tensor) else list(labels)
    if len(values) != n:
        raise InputError(f"every row needs its label, got {n} rows and {len(values)} labels.")
    classes = tuple(sorted(set(values), key=lambda label: (str(type(label)), label)))
    if len(classes) < 2:
        raise InputError(f"a probe tells classes apart, and all {n} labels are {classes[0]!r}." if n else "no rows.")
    place = {label: index for index, label in enumerate(classes)}
    return classes, torch.tensor([place[value] for value in values])


def _members(groups: Sequence[Hashable] | None, split: str, n: int) -> NDArray[np.int64]:
    """The number of each row's group, in order of appearance; a group for every row without `groups`."""
    if split not in ("subject", "row"):
        raise InputError(f"'split' must be 'subject' or 'row', got {split!r}.")
    if groups is None:
        return np.arange(n)
    if len(groups) != n:
        raise InputError(f"every row needs its group, got {n} rows and {len(groups)} groups.")
    order = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    return np.array([order[group] for group in groups])


def _enough(
    classes: tuple[Any, ...], truth: Tensor, members: NDArray[np.int64], folds: int
) -> tuple[Int[Tensor, m], dict[Any, int]]:
    """The rows of classes that can be in every fold, and how many rows each of the others has."""
    pairs = np.unique(np.stack((truth.numpy(), members)), axis=1)
    in_groups = np.bincount(pairs[0], minlength=len(classes))
    enough = torch.from_numpy(in_groups >= folds)
    if int(enough.sum()) < 2:
        listed = ", ".join(f"{label!r} is in {count}" for label, count in zip(classes, in_groups, strict=True))
        raise InputError(
            f"two classes at least must be in {folds} groups each, one a fold; {listed}: give more examples, or take "
            "fewer 'folds'."
        )
    counts = torch.bincount(truth, minlength=len(classes))
    rare = {label: int(counts[index]) for index, label in enumerate(classes) if not enough[index]}
    return enough[truth].nonzero()[:, 0], rare


def _parts(truth: Tensor, members: NDArray[np.int64], folds: int, seed: int) -> Int[Tensor, n]:
    """The fold of each row: groups are dealt out class by class, each to the fold that has the fewest of its class."""
    if folds < 3:
        raise InputError(f"a probe needs 3 'folds' at least, one to test, one to choose λ and one to fit; got {folds}.")
    n_classes = int(truth.max()) + 1
    table = np.zeros((members.max() + 1, n_classes), dtype=np.int64)
    np.add.at(table, (members, truth.numpy()), 1)
    order = np.random.default_rng(seed).permutation(len(table))
    main = table.argmax(1)
    held = np.zeros((folds, n_classes), dtype=np.int64)
    fold = np.zeros(len(table), dtype=np.int64)
    for group in sorted(order, key=lambda group: (main[group], -table[group].sum())):  # stable: `order` within these
        fold[group] = min(range(folds), key=lambda each: (held[each, main[group]], held[each].sum()))
        held[fold[group]] += table[group]
    return torch.from_numpy(fold[members])


def _shuffled(truth: Tensor, members: NDArray[np.int64], parts: Tensor, seed: int) -> Int[Tensor, n]:
    """Labels in another order within each fold, so that folds keep their classes: among groups, where each has one."""
    random = np.random.default_rng(seed)
    labels, found = truth.numpy(), truth.numpy().copy()
    _, first = np.unique(members, return_index=True)
    pure = bool((labels[first][members] == labels).all())
    for part in parts.unique().tolist():
        rows = np.flatnonzero(parts.numpy() == part)
        if pure:
            own = np.unique(members[rows])
            moved = dict(zip(own.tolist(), random.permutation(labels[first][own]).tolist(), strict=True))
            found[rows] = [moved[group] for group in members[rows].tolist()]
        else:
            found[rows] = random.permutation(labels[rows])
    return torch.from_numpy(found)


def _control(name: str, given: Any, members: NDArray[np.int64], states: Tensor, at: str | None) -> Tensor:
    """What a control is read off: states [L or 1, n, D], or counts [1, n, words]."""
    if isinstance(given, Tensor) and not given.is_floating_point():
        given = [[token for token in row if token >= 0] for row in given.tolist()]
    if isinstance(given, Trace | Tensor):
        found, _ = features(given, at if isinstance(given, Trace) else None)
    else:
        found = bag([row.split() if isinstance(row, str) else list(row) for row in given], members)
    if found.shape[1] != states.shape[1] or len(found) not in (1, len(states)):
        raise InputError(
            f"control '{name}' must have the {states.shape[1]} rows of the states, and 1 or {len(states)} places; got "
            f"{found.shape[1]} and {len(found)}."
        )
    return found


def _balanced(found: Tensor, truth: Tensor) -> float:
    n_classes = int(truth.max()) + 1
    return float((hits(found[None], truth, n_classes)[0] / torch.bincount(truth, minlength=n_classes)).mean())


def _score(found: Tensor, truth: Tensor, members: NDArray[np.int64], seed: int) -> Score:
    """Shares of right ones, with intervals over groups drawn anew."""
    n_groups, n_classes = int(members.max()) + 1, int(truth.max()) + 1
    hits, totals = np.zeros((n_groups, n_classes)), np.zeros((n_groups, n_classes))
    np.add.at(totals, (members, truth.numpy()), 1)
    np.add.at(hits, (members, truth.numpy()), (found == truth).numpy().astype(float))

    def drawn(samples: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Right ones and all, by class, of each draw of groups."""
        flat = samples.astype(np.int64) + n_groups * np.arange(len(samples))[:, None]
        times = np.bincount(flat.ravel(), minlength=len(samples) * n_groups).reshape(len(samples), n_groups)
        return times @ hits, times @ totals

    def balanced(samples: NDArray[Any], axis: int) -> NDArray[Any]:
        right, all_ = drawn(samples)
        return np.nanmean(np.where(all_ > 0, right / np.maximum(all_, 1), np.nan), axis)

    def accuracy(samples: NDArray[Any], axis: int) -> NDArray[Any]:
        right, all_ = drawn(samples)
        return right.sum(axis) / all_.sum(axis)

    whole = np.arange(n_groups)
    intervals = [bootstrap(whole.tolist(), statistic, seed=seed) for statistic in (balanced, accuracy)]
    exact = [float(statistic(whole[None], -1)[0]) for statistic in (balanced, accuracy)]
    return Score(exact[0], intervals[0], exact[1], intervals[1])


def _shown(value: float, interval: Interval) -> str:
    return f"{value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"
