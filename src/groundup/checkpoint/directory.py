"""A model directory is a Hugging Face model directory: what is written here, transformers and vLLM load as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from groundup.checkpoint.families import (
    from_their_config,
    from_their_weights,
    to_their_config,
    to_their_weights,
)
from groundup.checkpoint.state import read_tensors
from groundup.errors import FormatError
from groundup.files import atomic_file, read_json, write_json
from groundup.model import Transformer

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"


def save_model(
    directory: Path, model: Transformer, *, bos_id: int, eos_id: int, pad_id: int | None = None
) -> list[Path]:
    """Write config, weights (fp32) and generation config; the tokenizer writes its own files beside them.

    Returns:
        The files written.
    """
    ids: dict[str, Any] = {"bos_token_id": bos_id, "eos_token_id": eos_id, "pad_token_id": pad_id}
    weights = to_their_weights(model.config, {name: t.detach().cpu() for name, t in model.state_dict().items()})
    with atomic_file(directory / WEIGHTS) as temporary:
        save_file(weights, temporary, metadata={"format": "pt"})
    write_json(directory / CONFIG, to_their_config(model.config) | ids)
    write_json(directory / GENERATION_CONFIG, ids)
    return [directory / name for name in (WEIGHTS, CONFIG, GENERATION_CONFIG)]


def load_model(directory: Path, *, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Transformer:
    """Read a model directory, ready for inference.

    Raises:
        FormatError: no model there, a pickle instead of safetensors, another architecture, a damaged file.
    """
    if not (directory / CONFIG).is_file() or not (directory / WEIGHTS).is_file():
        pickles = sorted(path.name for path in directory.glob("*.bin"))
        raise FormatError(
            f"{directory}: " + (f"{pickles[0]} is a pickle" if pickles else f"no {CONFIG} and {WEIGHTS} in it"),
            rule="a model directory holds safetensors; pickles can run foreign code and are never loaded",
            fix="Give the directory that `groundup pretrain` wrote, or save the model as safetensors first.",
        )
    config = from_their_config(read_json(directory / CONFIG))
    weights = from_their_weights(config, read_tensors(directory / WEIGHTS))
    with torch.device("meta"):
        model = Transformer(config)
    model.load_state_dict({name: tensor.to(device, dtype) for name, tensor in weights.items()}, assign=True)
    if config.tie_embeddings:
        model.lm_head.weight = model.model.embed_tokens.weight
    return model.to(device).eval().requires_grad_(False)
