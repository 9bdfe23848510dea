"""A model directory is a Hugging Face model directory: what is written here, transformers and vLLM load as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from groundup.core.errors import FormatError
from groundup.core.files import read_json, write_json
from groundup.hub.config_json import read_config_json, to_config_json
from groundup.hub.families import Head
from groundup.hub.stored import StoredWeights, write_stored
from groundup.hub.weight_files import SHARD_BYTES, require_no_pickle
from groundup.model import ModelConfig, SequenceClassifier, Transformer
from groundup.model.weight_map import EMBEDDING, HEAD

CONFIG = "config.json"
CONFIG_BYTES = 10_000_000  # a config of a few hundred keys has 2 kB; lists of labels may be long
GENERATION_CONFIG = "generation_config.json"


@dataclass(frozen=True)
class SpecialTokenIds:
    """The ids that config and generation config name.

    Attributes:
        stop_ids: the tokens that end generation, if `eos_id` is not the only one.
    """

    bos_id: int | None
    eos_id: int
    pad_id: int | None = None
    stop_ids: Sequence[int] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the keys of `config.json`."""
        return {"bos_token_id": self.bos_id, "eos_token_id": self.eos_id, "pad_token_id": self.pad_id}


def save_model(
    directory: Path,
    model: Transformer,
    *,
    bos_id: int,
    eos_id: int,
    pad_id: int | None = None,
    stop_ids: Sequence[int] = (),
) -> list[Path]:
    """Write a model; see `save_weights`."""
    return save_weights(directory, model.config, model.state_dict(), SpecialTokenIds(bos_id, eos_id, pad_id, stop_ids))


def save_weights(
    directory: Path,
    config: ModelConfig,
    weights: Mapping[str, Tensor],
    special: SpecialTokenIds,
    *,
    dtype: torch.dtype | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> list[Path]:
    """Write config, weights and generation config; the tokenizer writes its own files next to them.

    Args:
        weights: a state dict of `Transformer`, or another mapping from names to tensors. Each tensor is read once, and
            at most one file's worth is held.
        dtype: dtype of all weights. Default: each tensor keeps its own.
        shard_bytes: maximum size of one weights file; a larger model gets several and an index.

    Returns:
        The files written.

    Raises:
        FormatError: `weights` has not exactly the tensors of this shape (e.g. adapters that were not merged).
        ResourceError: too little disk space.
    """
    files = _write(directory, config, weights, "language", special.to_json(), shard_bytes, dtype)
    return [*files, save_generation_config(directory, special)]


def save_generation_config(directory: Path, special: SpecialTokenIds) -> Path:
    """Write `generation_config.json`: the ids that begin and end a text."""
    ends = {"eos_token_id": list(special.stop_ids)} if special.stop_ids else {}
    write_json(directory / GENERATION_CONFIG, special.to_json() | ends)
    return directory / GENERATION_CONFIG


def save_classifier(
    directory: Path, model: SequenceClassifier, labels: Sequence[str], *, bos_id: int, eos_id: int, pad_id: int
) -> list[Path]:
    """Write a classifier as transformers' `*ForSequenceClassification`: config with the labels' names, and weights.

    Args:
        labels: the name of each label, by its index.
        pad_id: how transformers finds the last token of a padded text.

    Returns:
        The files written.
    """
    keys: dict[str, Any] = {
        "bos_token_id": bos_id,
        "eos_token_id": eos_id,
        "pad_token_id": pad_id,
        "problem_type": _SEVERAL_LABELS_A_TEXT if model.multi_label else _ONE_LABEL_A_TEXT,
        "num_labels": len(labels),
        "id2label": {str(index): label for index, label in enumerate(labels)},
        "label2id": {label: index for index, label in enumerate(labels)},
    }
    return _write(directory, model.config, model.state_dict(), "labels", keys, SHARD_BYTES)


def load_full_model(
    directory: Path, *, dtype: torch.dtype | None = torch.float32, device: str | torch.device = "cpu"
) -> Transformer:
    """Read the directory of a language model, ready for inference.

    On a CPU, tensors that are stored in the asked dtype stay in the file and are paged in when they are used; others
    are converted one by one. So the peak of memory is little more than the weights.

    Args:
        dtype: of the weights; None: as each is stored.

    Raises:
        FormatError: no model there, a pickle instead of safetensors, another architecture, a damaged file.
    """
    stored = open_weights(directory)
    with torch.device("meta"):
        model = Transformer(stored.config)
    _fill(model, stored, dtype, device)
    if stored.config.tie_embeddings:
        model.lm_head.weight = model.model.embed_tokens.weight
    return model.to(device).eval().requires_grad_(False)


def load_full_classifier(
    directory: Path, *, dtype: torch.dtype | None = torch.float32, device: str | torch.device = "cpu"
) -> tuple[SequenceClassifier, tuple[str, ...]]:
    """Read the directory of a classifier, ours or of transformers, ready for inference; with the names of its labels.

    Raises:
        FormatError: as `load_full_model`; or a head that does not choose labels.
    """
    theirs = _read_json(directory)
    config, (labels, multi_label) = read_config_json(theirs), _labels(theirs)
    stored = StoredWeights(directory, config, len(labels))
    with torch.device("meta"):
        model = SequenceClassifier(config, len(labels), multi_label=multi_label)
    _fill(model, stored, dtype, device)
    return model.to(device).eval().requires_grad_(False), labels


def open_weights(directory: Path) -> StoredWeights:
    """The weights of a language model under our names, mapped and not copied; its shape is their `config`.

    Raises:
        FormatError: as `load_full_model`.
    """
    return StoredWeights(directory, read_full_config(directory))


def read_full_config(directory: Path) -> ModelConfig:
    """The shape of a model directory's model. No weights are touched.

    Raises:
        FormatError: no config there, another architecture, or sizes that cannot be.
    """
    return read_config_json(_read_json(directory))


def _read_json(directory: Path) -> dict[str, Any]:
    require_no_pickle(directory)
    path = directory / CONFIG
    if not path.is_file():
        raise FormatError(
            f"{directory}: no {CONFIG} in it",
            rule="a model directory holds the config and the weights (safetensors) of a model",
            fix="Give the directory that groundup wrote, or one from a hub.",
        )
    theirs = read_json(path, max_bytes=CONFIG_BYTES)
    if not isinstance(theirs, dict):
        raise FormatError(f"{path}: no object", rule="a config has keys and values", fix="Get the model again.")
    return theirs


def _fill(model: nn.Module, stored: StoredWeights, dtype: torch.dtype | None, device: str | torch.device) -> None:
    taken = {name: stored.take(name, dtype, device) for name in stored if name != HEAD or not stored.tied}
    if stored.tied:  # once: a second copy of a large vocabulary's would be half a gigabyte
        taken[HEAD] = taken[EMBEDDING]
    model.load_state_dict(taken, assign=True)


def _write(
    directory: Path,
    config: ModelConfig,
    weights: Mapping[str, Tensor],
    head: Head,
    keys: Mapping[str, Any],
    shard_bytes: int,
    dtype: torch.dtype | None = None,
) -> list[Path]:
    directory.mkdir(parents=True, exist_ok=True)
    files = write_stored(directory, config, weights, head, dtype=dtype, shard_bytes=shard_bytes)
    named = str(dtype or weights[EMBEDDING].dtype).removeprefix("torch.")
    write_json(directory / CONFIG, to_config_json(config, head, named) | dict(keys))
    return [*files, directory / CONFIG]


_ONE_LABEL_A_TEXT, _SEVERAL_LABELS_A_TEXT = "single_label_classification", "multi_label_classification"


def _labels(theirs: Mapping[str, Any]) -> tuple[tuple[str, ...], bool]:
    """Their names, and whether a text may have several."""
    # transformers leaves out what equals its defaults: two labels with these names.
    named = theirs.get("id2label") or {str(index): f"LABEL_{index}" for index in range(theirs.get("num_labels", 2))}
    kind = theirs.get("problem_type") or _ONE_LABEL_A_TEXT
    if kind not in (_ONE_LABEL_A_TEXT, _SEVERAL_LABELS_A_TEXT) or len(named) < 2:
        raise FormatError(
            f"problem_type = {kind!r}, {len(named)} labels",
            rule="groundup reads classifiers that choose from two or more labels",
            fix="Choose another model.",
        )
    if set(named) != {str(index) for index in range(len(named))}:
        raise FormatError(
            f"id2label with the ids {', '.join(list(named)[:8])}",
            rule="labels are numbered from 0 without a gap",
            fix="Correct config.json.",
        )
    return tuple(str(named[str(index)]) for index in range(len(named))), kind == _SEVERAL_LABELS_A_TEXT
