"""Made the folder format1/ beside it, once. Never run again for it: the folder stands for all files ever written."""

import json
from pathlib import Path

import torch

from glassformer.checkpoints.native import load, save
from glassformer.models.config import Config
from glassformer.models.encoder_decoder import EncoderDecoder
from glassformer.text.pipeline import TextPipeline
from glassformer.text.tokenizer import Tokenizer

SOURCE, TARGET = [[4, 5, 6, 2], [7, 2, 0, 0]], [[1, 8, 9], [1, 5, 0]]


def main(folder: Path) -> None:
    torch.manual_seed(1)
    tokenizer = Tokenizer.train(["a b c d e f g h"], kind="word", vocab_size=20, min_frequency=1)
    config = Config(tokenizer.vocab_size, d_model=8, n_heads=2, d_ff=16, n_encoder_layers=1, n_decoder_layers=1)
    network = EncoderDecoder(config).eval()
    pipeline = TextPipeline(source="en", target="de", lowercase=True)
    save(folder, network, tokenizer, pipeline, "translation", extra={"step": 1})
    with torch.no_grad():
        logits = load(folder).network(torch.tensor(SOURCE), torch.tensor(TARGET)).logits
    (folder.parent / "format1_logits.json").write_text(json.dumps(logits.tolist()) + "\n")


if __name__ == "__main__":
    main(Path(__file__).parent / "format1")
