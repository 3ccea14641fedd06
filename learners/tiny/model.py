"""The tiny policy: a Qwen2 model and tokenizer made on the spot, small enough to train on a laptop's CPU."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, pre_tokenizers
from torch import Tensor
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer
from transformers.utils import logging

from learners.tiny.config import TinyConfig


def make_tokenizer(texts: Iterable[str], tags: Iterable[str], vocabulary: int) -> Qwen2Tokenizer:
    """A Qwen2 tokenizer (byte-level BPE) learned from `texts`, in which every tag is one token."""
    tokenizer = Qwen2Tokenizer(vocab={"<|endoftext|>": 0}, merges=[]).train_new_from_iterator(
        texts, vocabulary, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    # A tag includes the space before it; otherwise every turn would have four tokens of white space.
    tokenizer.add_tokens([AddedToken(tag, lstrip=True, normalized=False) for tag in tags])
    return tokenizer


def shape(config: TinyConfig, vocabulary: int, max_length: int) -> Qwen2Config:
    """The model's configuration, but for the ids of special tokens."""
    return Qwen2Config(
        vocab_size=-(-vocabulary // 64) * 64,
        hidden_size=config.hidden,
        intermediate_size=config.feed_forward,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.heads,
        max_position_embeddings=max_length,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        tie_word_embeddings=True,
        initializer_range=0.06,
        bos_token_id=None,
    )


def make_model(config: TinyConfig, tokenizer: Qwen2Tokenizer, max_length: int, seed: int) -> Qwen2ForCausalLM:
    """A Qwen2 model whose weights start out able to copy.

    A policy that searches must first copy names it has never seen, which takes an induction circuit: heads that look
    a token or two back, and later heads that find where the present tokens stood before and copy what followed
    (Olsson et al., 2022, arXiv 2209.11895). Both are rare in the usual initialisation and slow to form, so layers 0
    and 1 start as them; which copy to make, and when, is left to learning.
    """
    torch.manual_seed(seed)
    settings = shape(config, len(tokenizer), max_length)
    settings.eos_token_id, settings.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    model = Qwen2ForCausalLM(settings)
    head = config.hidden // config.heads
    angles = 1e6 ** (-torch.arange(0, head, 2) / head)  # radians a position, one for each rotated pair of a head
    with torch.no_grad():
        model.model.embed_tokens.weight.normal_(0, 1.0)
        model.model.norm.weight.fill_(0.1)  # tied embeddings of size 1 would make logits of size 16
        first, second, *others = (layer.self_attn for layer in model.model.layers)
        mark = torch.nn.init.orthogonal_(torch.empty(config.hidden, config.hidden))
        _look_back(first, angles, mark)
        _find_and_copy(second, angles, mark)
        for attention in others:
            attention.o_proj.weight.copy_(attention.v_proj.weight.T)
    return model.float()


def _look_back(attention: Any, angles: Tensor, mark: Tensor, strength: float = 9.0) -> None:
    """Half of the heads attend one token back, half two, and write half of it, turned by `mark`, beside the present."""
    attention.q_proj.weight.mul_(0.1)
    attention.k_proj.weight.mul_(0.1)
    # Query and key are constants; turning the query back by some positions makes their product largest there.
    ones = torch.ones(len(angles)) * strength
    heads = attention.q_proj.bias.numel() // (2 * len(angles))
    turned = [torch.cat([ones * torch.cos(n * angles), -ones * torch.sin(n * angles)]) for n in (1, 2)]
    attention.q_proj.bias.copy_(torch.cat([turned[head >= heads // 2] for head in range(heads)]))
    attention.k_proj.bias.copy_(torch.cat([ones, torch.zeros(len(angles))]).repeat(heads))
    half = torch.eye(len(mark))[: len(mark) // 2]
    attention.v_proj.weight.copy_(torch.cat([half, half]))
    attention.o_proj.weight.copy_(mark)


def _find_and_copy(
    attention: Any, angles: Tensor, mark: Tensor, gain: float = 0.16, context: float = 0.6, copy: float = 2.5
) -> None:
    """Every head looks where the present token stood before, best after the same token as now, and copies the next."""
    slow = (angles < 0.01).float().repeat(2)  # pairs that turn too slowly for distance to blur the match
    rows = slow.repeat(attention.q_proj.bias.numel() // len(slow))[:, None]
    one_back, two_back = mark.T.split(len(mark) // 2)  # each reads what `_look_back` wrote
    now = torch.eye(len(mark))[: len(one_back)]
    last, before = torch.randn(2, len(mark), len(one_back)) * gain * rows
    attention.q_proj.weight.copy_(last @ now + context * before @ one_back)
    attention.k_proj.weight.copy_(last @ one_back + context * before @ two_back)
    basis = torch.nn.init.orthogonal_(torch.empty_like(mark)) * copy
    attention.v_proj.weight.copy_(basis)
    attention.o_proj.weight.copy_(basis.T)


def save(model: Qwen2ForCausalLM, tokenizer: Qwen2Tokenizer, folder: Path) -> None:
    """Write both in Hugging Face format."""
    logging.disable_progress_bar()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
