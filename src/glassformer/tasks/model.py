"""`Model`: a network with its tokenizer and its text pipeline, and the verbs for texts. Each verb has a file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

import torch
from torch import Tensor, nn

from glassformer.checkpoints import native
from glassformer.errors import InputError
from glassformer.generation.compiled import accelerated
from glassformer.generation.constraints import grammar_tokens
from glassformer.generation.engine import Engine
from glassformer.models.decoder import Decoder
from glassformer.models.encoder import Encoder
from glassformer.models.folding import folded
from glassformer.models.heads import Output
from glassformer.models.weights import Weights
from glassformer.tasks import answer as answering
from glassformer.tasks import chat as chatting
from glassformer.tasks import classify as classifying
from glassformer.tasks import embed as embedding
from glassformer.tasks import fill as filling
from glassformer.tasks import generate as generating
from glassformer.tasks import score as scoring
from glassformer.tasks import summarize as summarizing
from glassformer.tasks import translate as translating
from glassformer.tasks.answer import Answer
from glassformer.tasks.chat import Conversation
from glassformer.tasks.classify import Label
from glassformer.tasks.fill import Fill
from glassformer.tasks.generate import Generation as Generation
from glassformer.tasks.generate import Options, Piece, Settings
from glassformer.tasks.inputs import Edit, Prompt, call, is_one
from glassformer.tasks.precision import Precision
from glassformer.tasks.running import at_precision, keeps_stored
from glassformer.tasks.score import Perplexity, Score
from glassformer.tasks.translate import BATCH_TOKENS as BATCH_TOKENS
from glassformer.text.pipeline import TextPipeline
from glassformer.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from glassformer.generation.engine import Continuing


@dataclass(frozen=True, eq=False)
class Model:
    """A network that reads and writes text; `load` or `train` gives one. The parts can be used by themselves.

    `eos_ids` are the tokens that end a text, where they are others than the config's `eos_id`, or several.
    """

    network: nn.Module
    tokenizer: Tokenizer
    pipeline: TextPipeline
    task: str = "translation"
    eos_ids: tuple[int, ...] = ()

    @classmethod
    def load(cls, name: str | Path, *, precision: Precision | None = None) -> Model:
        """The model that `name` means: a checkpoint, run or Hugging Face folder, a GGUF file, or a known name.

        `precision` "int8" and "int4" run dense layers on weights of 8 and 4 bits, for speed on a CPU: such a model is
        not to be trained or saved, and writes a little differently. What the file itself stores in 4 bits is kept
        exactly, and "stored" runs whatever the file has. "bf16" halves memory, and is fast where the processor
        multiplies it. "fp32" computes in fp32; weights that the file has in 4 or 8 bits stay so in memory, which is
        read faster, and such a model is for running only. Without a precision the network is fp32 through and through.

        Raises `InputError` for a name that means nothing, and for files that are missing, damaged or newer.
        """
        from glassformer.checkpoints.opening import open_model

        held = open_model(name, stored=keeps_stored(precision))
        eos_ids = tuple(held.extra.get("eos_ids", ()))
        return cls(at_precision(held.network, precision), held.tokenizer, held.pipeline, held.task, eos_ids)

    def save(
        self, folder: str | Path, *, extra: dict[str, Any] | None = None, dtype: torch.dtype | None = None
    ) -> Path:
        """Write the model to `folder`, for `load` to read; see `checkpoints.native.save`."""
        kept = ({"eos_ids": list(self.eos_ids)} if self.eos_ids else {}) | (extra or {})
        return native.save(folder, self.network, self.tokenizer, self.pipeline, self.task, extra=kept, dtype=dtype)

    def save_pretrained(self, folder: str | Path, *, dtype: torch.dtype | None = None) -> Path:
        """Write the model as a folder of Hugging Face's `transformers`; see `checkpoints.huggingface.write_folder`."""
        from glassformer.checkpoints.huggingface import write_folder

        return write_folder(folder, self.network, self.tokenizer, self.pipeline, dtype, eos_ids=self.eos_ids)

    @property
    def config(self) -> Any:
        """The network's shape and choices."""
        return self.network.config

    @property
    def device(self) -> torch.device:
        """Where the network's weights are, and its work is done."""
        return next(self.network.parameters()).device

    @property
    def ends(self) -> tuple[int, ...]:
        """The tokens that end a text."""
        return self.eos_ids or (self.config.eos_id,)

    @property
    def weights(self) -> Weights:
        """The network's matrices by layer and head, such as `weights.W_Q[3, 0]`; see `Weights`."""
        return Weights(self.network)

    def folded(self) -> Model:
        """The model with its norms folded into dense layers, in a copy; see `models.folding.folded`."""
        return replace(self, network=folded(self.network))

    @cached_property
    def running(self) -> Continuing:
        """What generates: the network, or something faster with the same seam."""
        if not isinstance(self.network, Decoder):
            raise InputError(f"only a decoder goes on from a text or scores it; this model is {self.purpose}.")
        return accelerated(self.network)

    @cached_property
    def grammar_tokens(self) -> Any:
        """The tokenizer as a JSON schema's grammar needs it."""
        return grammar_tokens(self.tokenizer, self.config.vocab_size, self.ends)

    def engine(self, *, rows: int = 32, **settings: Any) -> Engine:
        """An engine for this model, for `rows` texts at a time; see `Engine`."""
        return Engine(self.running, self.tokenizer, eos_ids=self.ends, rows=rows, device=self.device, **settings)

    def __call__(self, text: Any, target: Any = None, *, edits: Sequence[Edit] = ()) -> Output:
        """The network's `Output` for texts, facts or ids, one or several, padded on the right.

        Text is framed as the model's texts are. An encoder-decoder wants what its decoder reads as well, as `target`.
        `edits` change what passes on the way (`interpret.edits`). Gradients flow as torch is set to.
        """
        return call(self, text, target, edits)

    @overload  # a string is a sequence of strings too; it comes first
    def translate(  # type: ignore[overload-overlap]
        self,
        text: str,
        *,
        beam: int = ...,
        n_best: int = ...,
        length_penalty: float = ...,
        max_length: int | None = ...,
        tokenized: bool = ...,
        long: Literal["error", "split"] = ...,
        batch_tokens: int = ...,
        first_line: int = ...,
    ) -> Generation: ...
    @overload
    def translate(
        self,
        text: Sequence[str],
        *,
        beam: int = ...,
        n_best: int = ...,
        length_penalty: float = ...,
        max_length: int | None = ...,
        tokenized: bool = ...,
        long: Literal["error", "split"] = ...,
        batch_tokens: int = ...,
        first_line: int = ...,
    ) -> list[Generation]: ...
    def translate(
        self,
        text: str | Sequence[str],
        *,
        beam: int = 5,
        n_best: int = 1,
        length_penalty: float = 1.0,
        max_length: int | None = None,
        tokenized: bool = False,
        long: Literal["error", "split"] = "error",
        batch_tokens: int = BATCH_TOKENS,
        first_line: int = 1,
    ) -> Generation | list[Generation]:
        """Translate one text, or a list of them: a string gives one `Generation`, a list a list in the same order.

        `tokenized` reads and writes the tokens that the text pipeline would make, separated by spaces, and leaves the
        pipeline out. An empty line gives an empty text. Lines of like length are translated together, in batches of at
        most `batch_tokens` source tokens; what a line gives does not depend on the others. See `beam_search` for
        `beam`, `n_best`, `length_penalty` and `max_length` (in tokens).

        A line with more tokens than the model has positions is an `InputError` that names it, counting from
        `first_line`; with `long="split"` it is translated in parts, with a warning.
        """
        if isinstance(self.network, Decoder | Encoder):
            raise InputError(f"'translate' wants an encoder-decoder; this model is {self.purpose}.")
        results = translating.translate(
            self,
            translating.lines_of(text),
            beam=beam,
            n_best=n_best,
            length_penalty=length_penalty,
            max_length=max_length,
            tokenized=tokenized,
            long=long,
            batch_tokens=batch_tokens,
            first_line=first_line,
        )
        return results[0] if isinstance(text, str) else results

    @overload
    def generate(self, prompt: Prompt, **settings: Unpack[Settings]) -> Generation: ...  # type: ignore[overload-overlap]
    @overload
    def generate(
        self, prompt: Sequence[str] | Sequence[Sequence[int]], **settings: Unpack[Settings]
    ) -> list[Generation]: ...
    def generate(self, prompt: Any, **settings: Unpack[Settings]) -> Generation | list[Generation]:
        """Go on from a prompt, or from a list of them: text, read as it is, or ids; one gives one `Generation`, a list
        a list in the same order.

        `max_new_tokens=128, temperature=0.0, top_k=0, top_p=1.0, min_p=0.0, repetition_penalty=1.0, seed=None,
        stop=(), beam=1, n_best=1, length_penalty=1.0, logprobs=0, prompt_logprobs=False, logit_bias=None,
        functions=(), json_schema=None, truncate=False, ignore_eos=False, batch_size=None, uncertainty=False,
        states=False`: see `tasks.generate.Options`. What a prompt gives does not depend on the others.

        Special tokens that a text spells are read as plain text; give ids where they are meant. An empty text begins
        with the model's first token. Raises `InputError` for a prompt longer than the model's positions (unless
        `truncate`); a text that reaches the last position ends there, with `finish_reason` "length".
        """
        one = is_one(prompt)
        options = Options(**settings)
        results = generating.generate(self, [prompt] if one else prompt, options)
        return results[0] if one else results

    def stream(self, prompt: Prompt, **settings: Unpack[Settings]) -> Iterator[Piece]:
        """`generate` for one prompt, piece by piece as it comes; the iterator may be left at any time."""
        if not is_one(prompt):
            raise InputError("a stream goes on from one prompt: give a string or the ids of one.")
        return generating.stream(self, prompt, Options(**settings))

    def chat(self, messages: Sequence[Mapping[str, Any]], **settings: Unpack[Settings]) -> Generation:
        """The model's answer to a conversation, `[{"role": "user", "content": "..."}, ...]`; settings as in `generate`.

        Raises `InputError` where the model has no chat template, or the template refuses the messages.
        """
        return chatting.chat(self, messages, Options(**settings))

    def conversation(self, system: str | None = None, *, drop_oldest: bool = False) -> Conversation:
        """A conversation that remembers what was said; see `Conversation`."""
        return Conversation(self, system, drop_oldest=drop_oldest)

    def embed(
        self,
        texts: Prompt | Sequence[Prompt],
        *,
        batch_tokens: int = embedding.BATCH_TOKENS,
        truncate: bool = False,
        normalize: bool | None = None,
        first_line: int = 1,
    ) -> Tensor:
        """One vector a text: fp32 [n, D] on the CPU, in order; [D] for one text. Ids are read without a frame.

        `normalize` makes vectors of length 1, or leaves their length; by default, as the model was tuned. A text of
        more tokens than the model was tuned to read is an `InputError` that names its line, counting from `first_line`;
        with `truncate` only its beginning is read. Texts of like length are read together, in batches of at most
        `batch_tokens` tokens, and a vector does not depend on the other texts.
        """
        return embedding.embed(self, texts, batch_tokens, truncate, normalize, first_line)

    def fill(self, text: str, *, top: int = 5) -> list[Fill] | list[list[Fill]]:
        """The `top` most probable words for the mask in `text`, the best first; a list for each where there are
        several masks. Raises `InputError` for a text without one, naming the model's."""
        return filling.fill(self, text, top)

    @overload
    def score(self, text: Prompt, *, batch_tokens: int = ...) -> Score: ...  # type: ignore[overload-overlap]
    @overload
    def score(self, text: Sequence[str] | Sequence[Sequence[int]], *, batch_tokens: int = ...) -> list[Score]: ...
    def score(self, text: Any, *, batch_tokens: int = scoring.BATCH_TOKENS) -> Score | list[Score]:
        """How probable the model finds a text, or each of a list; see `Score`."""
        one = is_one(text)
        results = scoring.score(self, [text] if one else text, batch_tokens)
        return results[0] if one else results

    def perplexity(
        self,
        text: str | Sequence[int] | Tensor,
        *,
        stride: int | None = None,
        context: int | None = None,
        batch_tokens: int = scoring.BATCH_TOKENS,
    ) -> Perplexity:
        """exp of the mean negative log-probability of a long text's tokens; see `tasks.score.perplexity`."""
        return scoring.perplexity(self, text, stride, context, batch_tokens)

    @overload
    def classify(  # type: ignore[overload-overlap]
        self, text: str, *, batch_tokens: int = ..., truncate: bool = ..., first_line: int = ...
    ) -> Label: ...
    @overload
    def classify(
        self, text: Sequence[str], *, batch_tokens: int = ..., truncate: bool = ..., first_line: int = ...
    ) -> list[Label]: ...
    def classify(
        self,
        text: str | Sequence[str],
        *,
        batch_tokens: int = classifying.BATCH_TOKENS,
        truncate: bool = False,
        first_line: int = 1,
    ) -> Label | list[Label]:
        """The most probable label of a text, or of each of a list; see `Label`.

        A text longer than the model's positions is an `InputError` that names its line, counting from `first_line`;
        with `truncate` only its beginning is read. What a text gives does not depend on the others.
        """
        results = classifying.classify(self, text, batch_tokens, truncate, first_line)
        return results[0] if isinstance(text, str) else results

    @overload
    def answer(  # type: ignore[overload-overlap]
        self,
        question: str,
        context: str,
        *,
        threshold: float | None = ...,
        max_tokens: int = ...,
        stride: int | None = ...,
        first_line: int = ...,
    ) -> Answer: ...
    @overload
    def answer(
        self,
        question: Sequence[str],
        context: str | Sequence[str],
        *,
        threshold: float | None = ...,
        max_tokens: int = ...,
        stride: int | None = ...,
        first_line: int = ...,
    ) -> list[Answer]: ...
    def answer(
        self,
        question: str | Sequence[str],
        context: str | Sequence[str],
        *,
        threshold: float | None = None,
        max_tokens: int = 0,
        stride: int | None = None,
        first_line: int = 1,
    ) -> Answer | list[Answer]:
        """The span of `context` that answers a question, or each of a list; a list may share one context. See `Answer`.

        Long contexts are read in pieces of at most `max_tokens` tokens with the question (384 unless given), `stride`
        from one to the next (a third of them unless given); the best span of all is taken. A question is refused where
        "no answer" scores higher than that by more than `threshold`, by default the model's own (None in a model never
        trained to refuse, which then always answers). Errors count questions from `first_line`.
        """
        questions = [question] if isinstance(question, str) else list(question)
        contexts = [context] * len(questions) if isinstance(context, str) else list(context)
        settings: dict[str, Any] = {"max_tokens": max_tokens, "stride": stride, "first_line": first_line}
        results = answering.answer(self, questions, contexts, threshold=threshold, **settings)
        return results[0] if isinstance(question, str) else results

    @overload
    def summarize(self, text: str, **settings: Any) -> Generation: ...  # type: ignore[overload-overlap]
    @overload
    def summarize(self, text: Sequence[str], **settings: Any) -> list[Generation]: ...
    def summarize(self, text: str | Sequence[str], **settings: Any) -> Generation | list[Generation]:
        """A short text for a long one, or for each of a list: a string gives one `Generation`, a list a list.

        `beam=1, length_penalty=1.0, max_new_tokens=None (64, or half of the model's positions where that is less),
        max_tokens=0, truncate=False, first_line=1`. An encoder-decoder
        reads the text itself, a decoder its pipeline's prompt with the text in it. A text of more than `max_tokens`
        tokens (0: as many as the model can read) is an `InputError`; with `truncate` only its beginning is read.
        """
        results = summarizing.summarize(self, [text] if isinstance(text, str) else text, **settings)
        return results[0] if isinstance(text, str) else results

    def evaluate(self, pairs: Any, **settings: Any) -> dict[str, Any]:
        """Translate the sources of `pairs` and score the result; see `tasks.evaluation.evaluate`."""
        from glassformer.tasks.evaluation import evaluate

        return evaluate(self, pairs, **settings)

    @property
    def purpose(self) -> str:
        """What the model is and can do, as an error says it."""
        if isinstance(self.network, Decoder):
            return "a decoder: it goes on from a prompt (generate, stream, chat) and scores text (score, perplexity)"
        if isinstance(self.network, Encoder):
            return embedding.purpose(self.config.head)
        return "an encoder-decoder: it turns one text into another (translate)"


def load(name: str | Path, *, precision: Precision | None = None) -> Model:
    """`Model.load`: the model in a folder or file, or one that is known by its name."""
    return Model.load(name, precision=precision)
