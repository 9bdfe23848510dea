"""Weight initialization."""

from __future__ import annotations

import torch
from torch import nn

from groundup.model.transformer import Transformer


def init_weights(model: Transformer, seed: int) -> None:
    """Initialize the weights of a model in place.

    Matrices whose input is the residual stream are drawn from a normal distribution with std 1/sqrt(fan-in). Matrices
    whose output is added to the residual stream are zero, so that each block is initially the identity. The weights of
    the output head are close to zero, so that the initial loss is close to ln(vocab_size).

    Args:
        model: The model, which is modified in place.
        seed: Random seed.
    """
    generator, config = torch.Generator().manual_seed(seed), model.config
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2:
            unit = config.norm != "rms_plus_one" and not name.endswith(".bias")
            nn.init.constant_(parameter, 1.0 if unit else 0.0)
        # If a norm follows, these matrices are not zero, because the gradient of a norm at zero is 1/sqrt(eps), which
        # is very large.
        elif name.endswith(("o_proj.weight", "down_proj.weight")) and config.block in ("pre", "parallel"):
            nn.init.zeros_(parameter)
        elif "embed_" in name:
            # Tied embeddings must be small, because they are also the weights of the output head. The scale of untied
            # embeddings does not matter, because the first RMSNorm removes it.
            std = 0.02 if config.tie_embeddings or not config.rotary else 1.0
            nn.init.normal_(parameter, std=std, generator=generator)
        elif name == "lm_head.weight":
            nn.init.normal_(parameter, std=0.001, generator=generator)
        else:
            nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5, generator=generator)
