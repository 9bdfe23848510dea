"""TRL's `SFTTrainer` and our objective on the same packed batch: the same loss, the same gradients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from groundup.checkpoint import load_model
from groundup.objectives import NextToken
from groundup.tokens import PackedWindows
from groundup.types import IGNORE_INDEX

pytestmark = pytest.mark.interop


def examples(vocab_size: int) -> list[dict[str, list[int]]]:
    """Of all lengths, each with two stretches that are learned, as turns of a conversation are."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for length in (9, 40, 17, 64, 23, 31, 5, 52):
        ids = torch.randint(8, vocab_size, (length,), generator=generator).tolist()
        learned = [int(length // 4 <= t < length // 2 or t >= length - length // 5) for t in range(length)]
        made.append({"input_ids": ids, "completion_mask": learned})
    return made


@pytest.fixture
def trainer(our_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.setenv(name, "1")
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    settings = SFTConfig(
        output_dir=str(tmp_path),
        packing=True,
        max_length=128,
        completion_only_loss=True,
        per_device_train_batch_size=2,
        bf16=False,
        use_cpu=True,
        report_to=[],
        gradient_checkpointing=False,
    )
    return SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(our_model, dtype=torch.float32),
        args=settings,
        train_dataset=Dataset.from_list(examples(400)),
        processing_class=AutoTokenizer.from_pretrained(our_model),
    )


def as_ours(batch: dict[str, torch.Tensor]) -> PackedWindows:
    """Their batch in our words: labels stand at the token before, and documents begin where positions do."""
    labels = torch.full_like(batch["labels"], IGNORE_INDEX)
    labels[:, :-1] = batch["labels"][:, 1:]
    documents = (batch["position_ids"] == 0).long().cumsum(1) - 1
    labels[:, :-1][documents[:, 1:] != documents[:, :-1]] = IGNORE_INDEX  # nothing is learned across documents
    return PackedWindows(batch["input_ids"], labels, batch["position_ids"], documents)


def test_the_loss_and_its_gradients_are_trls(trainer: Any, our_model: Path) -> None:
    """A mask that lets a document see the one before it, or a label that is off by one, moves both."""
    batch = next(iter(trainer.get_train_dataloader()))
    assert int((batch["position_ids"] == 0).sum()) > 2, "nothing is packed"
    theirs = trainer.compute_loss(trainer.model, dict(batch))
    theirs.backward()

    model, objective, packed = load_model(our_model), NextToken(), as_ours(batch)
    model.requires_grad_(True)
    loss, _ = objective(model, packed)
    ours = loss / objective.normalizer(packed)
    ours.backward()

    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    gradients = dict(trainer.model.named_parameters())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name].grad, atol=1e-4, rtol=1e-3)
