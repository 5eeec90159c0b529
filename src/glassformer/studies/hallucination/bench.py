"""What the parts of the study share: the model, the questions, and the answers that it gave to them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from glassformer.checkpoints.files import sha256
from glassformer.errors import InputError
from glassformer.factuality.calibration import Asking
from glassformer.factuality.labelling import Answered, answer_all, asking_of
from glassformer.factuality.questions import Question, read_questions
from glassformer.studies.fact_recall.loaded import digest
from glassformer.studies.study import Setting
from glassformer.tasks.model import Model
from glassformer.text.corpora import resolve

RELATIONS = (
    *("country_capital_city", "country_currency", "country_language", "country_largest_city", "city_in_country"),
    *("food_from_country", "product_by_company", "person_plays_pro_sport", "person_native_language"),
    *("landmark_in_country", "person_plays_instrument", "company_hq"),
)
"""Relations with short answers that a model of this size may know; `data_root`/relations/factual/NAME.json has each."""

FEW = 300
"""At most so many questions of company_hq, of which hardly one in six is answered: it would outweigh the others."""

SHOTS = 3


@dataclass(frozen=True, eq=False)
class Bench:
    """A model, called `name` in the report, and where the data lies. `athletes` is the run of a GPT that was trained on
    people (recipes/athletes-gpt.toml), if there is one. Answers are kept in memory, and in `out`/answers."""

    name: str
    model: Model
    data_root: Path | None = None
    out: Path = Path("hallucination")
    athletes: Path | None = None
    seed: int = 0
    relations: tuple[str, ...] = RELATIONS
    _answers: dict[Any, list[Answered]] = field(default_factory=dict, repr=False)

    @cached_property
    def weights(self) -> str:
        """A hash of the model's weights."""
        return digest(self.model)

    def given(self) -> dict[str, Any]:
        """What results depend on, beside the setting: kept ones of something else are not used."""
        weights = None if self.athletes is None else self.athletes / "model.safetensors"
        athletes = sha256(weights) if weights is not None and weights.is_file() else ""
        return {
            "athletes": athletes,
            "model": self.name,
            "weights": self.weights,
            "relations": list(self.relations),
            "seed": self.seed,
        }

    def file(self, name: str) -> Path:
        """A data file by its name below the data's folder. `InputError` where it is missing, with where it is from."""
        path = resolve(name, self.data_root)
        if not path.is_file():
            raise InputError(f"{path} is missing; docs/data.md says where it is from, --data-root where it lies.")
        return path

    def relation_questions(self, setting: Setting, quick: int = 600) -> list[Question]:
        """The questions of all relations, `company_hq` cut to 300 by the seed: all of them in a full study; about
        `quick` or, in a toy, 60, drawn by the seed, else."""
        found: list[Question] = []
        for name in self.relations:
            asked = read_questions(self.file(f"relations/factual/{name}.json"))
            if name == "company_hq":
                asked = random.Random(f"{self.seed} {name}").sample(asked, min(FEW, len(asked)))
            found += asked
        count = setting.pick(60, quick, len(found))
        if count >= len(found):
            return found
        rows = sorted(random.Random(f"study {self.seed}").sample(range(len(found)), count))
        return [found[row] for row in rows]

    def asking(self, questions: Sequence[Question], shots: int = SHOTS) -> Asking:
        """The usual way of asking: examples with their answers before every question, of its relation."""
        return asking_of(questions, Asking("few-shot" if shots else "bare", shots, self.seed))

    def answered(self, questions: Sequence[Question], asking: Asking, setting: Setting) -> list[Answered]:
        """The model's answers with their records and labels, asked once; what was interrupted goes on."""
        key = (tuple(questions), asking)
        if key not in self._answers:
            kept = self.out / "answers" / f"{asking.style}-{asking.count}.jsonl"
            found = answer_all(self.model, questions, asking, kept=kept, say=lambda line: setting.say(f"   {line}"))
            self._answers[key] = found
        return self._answers[key]
