"""Weights before the first step."""

from __future__ import annotations

import torch
from torch import nn

from groundup.model.transformer import Transformer


def init_weights(model: Transformer, seed: int) -> None:
    """Fill `model` in place, the same for the same seed.

    Matrices that read the residual stream are normal with std 1/sqrt(fan-in); those that write to it start at zero, so
    that every block begins as the identity; the head starts near zero, so that the first loss is ln(vocab_size).
    """
    generator, config = torch.Generator().manual_seed(seed), model.config
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2:
            unit = config.norm != "rms_plus_one" and not name.endswith(".bias")
            nn.init.constant_(parameter, 1.0 if unit else 0.0)
        # Before a branch's norm zeros would not stay small: its slope at zero is 1/sqrt(eps).
        elif name.endswith(("o_proj.weight", "down_proj.weight")) and config.block in ("pre", "parallel"):
            nn.init.zeros_(parameter)
        elif "embed_" in name:
            # A tied head must not begin with large logits; RMSNorm makes the scale of an untied embedding free.
            std = 0.02 if config.tie_embeddings or not config.rotary else 1.0
            nn.init.normal_(parameter, std=std, generator=generator)
        elif name == "lm_head.weight":
            nn.init.normal_(parameter, std=0.001, generator=generator)
        else:
            nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5, generator=generator)
