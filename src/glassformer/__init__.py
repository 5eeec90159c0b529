"""Transformers you can see through: one small, readable core in PyTorch.

    import glassformer as gf
    model = gf.load("multi30k-en-de")
    model.translate("A man rides a bike.")

The public names are imported when they are first used, so that importing the package does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from glassformer.errors import InputError as InputError
    from glassformer.factuality.asking import ask as ask
    from glassformer.factuality.measured import uncertainty as uncertainty
    from glassformer.factuality.verifying import verify as verify
    from glassformer.generation.sampling import Sampling as Sampling
    from glassformer.interpret.attribution import Attribution as Attribution
    from glassformer.interpret.attribution import attribute as attribute
    from glassformer.interpret.edits import ablate as ablate
    from glassformer.interpret.edits import apply as apply
    from glassformer.interpret.edits import knockout as knockout
    from glassformer.interpret.edits import patch as patch
    from glassformer.interpret.edits import steer as steer
    from glassformer.interpret.effects import effect as effect
    from glassformer.interpret.facts import Fact as Fact
    from glassformer.interpret.facts import Facts as Facts
    from glassformer.interpret.facts import facts as facts
    from glassformer.interpret.generating import edited as edited
    from glassformer.interpret.heads import attention_statistics as attention_statistics
    from glassformer.interpret.heads import head_tags as head_tags
    from glassformer.interpret.lens import Lens as Lens
    from glassformer.interpret.lens import lens as lens
    from glassformer.interpret.paths import path_patch as path_patch
    from glassformer.interpret.probes import probe as probe
    from glassformer.interpret.saving import load_edits as load_edits
    from glassformer.interpret.saving import save_edits as save_edits
    from glassformer.interpret.sweep import sweep as sweep
    from glassformer.interpret.trace import Trace as Trace
    from glassformer.interpret.trace import trace as trace
    from glassformer.interpret.tuned_lens import TunedLens as TunedLens
    from glassformer.interpret.tuned_lens import tuned_lens as tuned_lens
    from glassformer.models.config import Classification as Classification
    from glassformer.models.config import Config as Config
    from glassformer.models.config import ConvolutionalConfig as ConvolutionalConfig
    from glassformer.models.config import Learned as Learned
    from glassformer.models.config import MaskedLM as MaskedLM
    from glassformer.models.config import RecurrentConfig as RecurrentConfig
    from glassformer.models.config import Relative as Relative
    from glassformer.models.config import Rotary as Rotary
    from glassformer.models.config import Sentence as Sentence
    from glassformer.models.config import Sinusoidal as Sinusoidal
    from glassformer.models.config import Spans as Spans
    from glassformer.models.config import Tagging as Tagging
    from glassformer.models.convolutional import Convolutional as Convolutional
    from glassformer.models.decoder import Decoder as Decoder
    from glassformer.models.encoder import Encoder as Encoder
    from glassformer.models.encoder_decoder import EncoderDecoder as EncoderDecoder
    from glassformer.models.recurrent import Recurrent as Recurrent
    from glassformer.models.sizes import sizes as sizes
    from glassformer.tasks import objectives as objectives
    from glassformer.tasks.chat import Conversation as Conversation
    from glassformer.tasks.evaluation import evaluate as evaluate
    from glassformer.tasks.fill import Fill as Fill
    from glassformer.tasks.generate import Generation as Generation
    from glassformer.tasks.generate import Piece as Piece
    from glassformer.tasks.model import Model as Model
    from glassformer.tasks.model import load as load
    from glassformer.tasks.score import Perplexity as Perplexity
    from glassformer.tasks.score import Score as Score
    from glassformer.text.corpora import Pairs as Pairs
    from glassformer.text.corpora import read_pairs as read_pairs
    from glassformer.text.pairs import PairBatches as PairBatches
    from glassformer.text.pipeline import TextPipeline as TextPipeline
    from glassformer.text.tokenizer import Tokenizer as Tokenizer
    from glassformer.training.averaging import average as average
    from glassformer.training.experiment import resume as resume
    from glassformer.training.experiment import train as train
    from glassformer.training.recipes import Recipe as Recipe
    from glassformer.training.recipes import read_recipe as read_recipe

    __version__: str

_HOMES = {
    "Attribution": "interpret.attribution",
    "Classification": "models.config",
    "Config": "models.config",
    "Conversation": "tasks.chat",
    "Convolutional": "models.convolutional",
    "ConvolutionalConfig": "models.config",
    "Decoder": "models.decoder",
    "Encoder": "models.encoder",
    "EncoderDecoder": "models.encoder_decoder",
    "Fact": "interpret.facts",
    "Facts": "interpret.facts",
    "Fill": "tasks.fill",
    "Generation": "tasks.generate",
    "InputError": "errors",
    "Learned": "models.config",
    "Lens": "interpret.lens",
    "MaskedLM": "models.config",
    "Model": "tasks.model",
    "PairBatches": "text.pairs",
    "Pairs": "text.corpora",
    "Perplexity": "tasks.score",
    "Piece": "tasks.generate",
    "Recipe": "training.recipes",
    "Recurrent": "models.recurrent",
    "RecurrentConfig": "models.config",
    "Relative": "models.config",
    "Rotary": "models.config",
    "Sampling": "generation.sampling",
    "Score": "tasks.score",
    "Sentence": "models.config",
    "Sinusoidal": "models.config",
    "Spans": "models.config",
    "Tagging": "models.config",
    "TextPipeline": "text.pipeline",
    "Tokenizer": "text.tokenizer",
    "Trace": "interpret.trace",
    "TunedLens": "interpret.tuned_lens",
    "ablate": "interpret.edits",
    "apply": "interpret.edits",
    "ask": "factuality.asking",
    "attention_statistics": "interpret.heads",
    "attribute": "interpret.attribution",
    "average": "training.averaging",
    "edited": "interpret.generating",
    "effect": "interpret.effects",
    "evaluate": "tasks.evaluation",
    "facts": "interpret.facts",
    "head_tags": "interpret.heads",
    "knockout": "interpret.edits",
    "lens": "interpret.lens",
    "load": "tasks.model",
    "load_edits": "interpret.saving",
    "objectives": "tasks.objectives",
    "patch": "interpret.edits",
    "path_patch": "interpret.paths",
    "probe": "interpret.probes",
    "read_pairs": "text.corpora",
    "read_recipe": "training.recipes",
    "resume": "training.experiment",
    "save_edits": "interpret.saving",
    "sizes": "models.sizes",
    "steer": "interpret.edits",
    "sweep": "interpret.sweep",
    "trace": "interpret.trace",
    "train": "training.experiment",
    "tuned_lens": "interpret.tuned_lens",
    "uncertainty": "factuality.measured",
    "verify": "factuality.verifying",
}

__all__ = ["__version__", *_HOMES]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name not in _HOMES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    home = importlib.import_module(f"{__name__}.{_HOMES[name]}")
    value = home if name == "objectives" else getattr(home, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(__name__)
    except PackageNotFoundError:  # a source tree that is not installed
        return "0"
