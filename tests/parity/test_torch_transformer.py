"""Our layers against torch.nn's, on copied weights: outputs and gradients agree."""

import pytest
import torch
from torch import Tensor, nn

from glassformer.layers.attention import Attention
from glassformer.layers.block import Block
from glassformer.layers.masks import causal_mask
from glassformer.models.assembly import block
from glassformer.models.config import Config
from glassformer.models.encoder_decoder import EncoderDecoder

CONFIG = Config(vocab_size=30, d_model=24, n_heads=4, d_ff=40, n_encoder_layers=2, n_decoder_layers=2, dropout=0.0)


def copy_attention(theirs: nn.MultiheadAttention, ours: Attention) -> None:
    parts = (ours.to_query, ours.to_key, ours.to_value)
    nn.init.normal_(theirs.in_proj_bias, std=0.1)
    for weight, bias, part in zip(theirs.in_proj_weight.chunk(3), theirs.in_proj_bias.chunk(3), parts, strict=True):
        part.weight.data.copy_(weight)
        part.bias.data.copy_(bias)
    ours.to_output.load_state_dict(theirs.out_proj.state_dict())


def copy_layer(theirs: nn.Module, ours: Block) -> None:
    copy_attention(theirs.self_attn, ours.self_attention)
    if ours.cross_attention is not None:
        copy_attention(theirs.multihead_attn, ours.cross_attention)
        ours.norm_3.load_state_dict(theirs.norm3.state_dict())
    ours.norm_1.load_state_dict(theirs.norm1.state_dict())
    ours.norm_2.load_state_dict(theirs.norm2.state_dict())
    ours.feed_forward.up.load_state_dict(theirs.linear1.state_dict())
    ours.feed_forward.down.load_state_dict(theirs.linear2.state_dict())


def lengths_mask() -> Tensor:
    return torch.arange(7) < torch.tensor([7, 4, 2])[:, None]


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_encoder_layer(norm_first: bool, activation: str) -> None:
    torch.manual_seed(0)
    theirs = nn.TransformerEncoderLayer(24, 4, 40, 0.0, activation, batch_first=True, norm_first=norm_first)
    ours = block(Config(30, d_model=24, n_heads=4, d_ff=40, dropout=0.0, norm_first=norm_first, activation=activation))
    copy_layer(theirs, ours)
    x, real = torch.randn(3, 7, 24), lengths_mask()
    expected = theirs(x, src_key_padding_mask=~real)
    torch.testing.assert_close(ours(x, real[:, None, None])[real], expected[real], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("norm_first", [False, True])
def test_decoder_layer_and_its_gradients(norm_first: bool) -> None:
    torch.manual_seed(0)
    theirs = nn.TransformerDecoderLayer(24, 4, 40, 0.0, batch_first=True, norm_first=norm_first)
    ours = block(Config(30, d_model=24, n_heads=4, d_ff=40, dropout=0.0, norm_first=norm_first), cross=True)
    copy_layer(theirs, ours)
    x, memory, real = torch.randn(3, 5, 24), torch.randn(3, 7, 24), lengths_mask()
    expected = theirs(x, memory, tgt_mask=~causal_mask(5, 5), memory_key_padding_mask=~real)
    heard = ours.cross_attention.keys_values(memory)
    got = ours(x, causal=True, memory=heard, memory_mask=real[:, None, None])
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)
    expected.square().sum().backward()
    got.square().sum().backward()
    torch.testing.assert_close(ours.feed_forward.up.weight.grad, theirs.linear1.weight.grad, atol=1e-4, rtol=1e-3)
    query, _, value = theirs.self_attn.in_proj_weight.grad.chunk(3)
    torch.testing.assert_close(ours.self_attention.to_query.weight.grad, query, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(ours.self_attention.to_value.weight.grad, value, atol=1e-4, rtol=1e-3)


def test_whole_stacks() -> None:
    """Embedded inputs through torch.nn.Transformer and through our encoder and decoder."""
    torch.manual_seed(0)
    theirs = nn.Transformer(24, 4, 2, 2, 40, 0.0, batch_first=True)
    theirs.encoder.norm = theirs.decoder.norm = None  # post-norm, as in the paper: no further norm at the end
    ours = EncoderDecoder(CONFIG)
    for stack, layers in ((ours.encoder, theirs.encoder.layers), (ours.decoder, theirs.decoder.layers)):
        for mine, layer in zip(stack.blocks, layers, strict=True):
            copy_layer(layer, mine)
    source, target = torch.randint(3, 30, (2, 6)), torch.randint(3, 30, (2, 5))
    embed = ours.encoder.embedding
    expected = theirs(embed(source), embed(target), tgt_mask=~causal_mask(5, 5))
    torch.testing.assert_close(ours.hidden(source, target), expected, atol=1e-5, rtol=1e-4)
