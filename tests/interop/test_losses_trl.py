"""TRL's `SFTTrainer` and groundup: equal loss and gradients of a packed batch, and equal losses in training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from groundup.cli import main
from groundup.core.types import IGNORE_INDEX
from groundup.data import ExampleLoader, PackedWindows
from groundup.hub import load_model, save_model
from groundup.hub.chat_tokens import add_chat_tokens
from groundup.hub.loading import open_model
from groundup.tokenizer import Tokenizer
from groundup.train.objectives import NextToken

pytestmark = pytest.mark.interop


def examples(vocab_size: int) -> list[dict[str, list[int]]]:
    """Examples of all lengths, each with two trained spans, like the turns of a conversation."""
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
    """Convert a TRL batch: labels are shifted to the previous token, and documents begin at position 0."""
    labels = torch.full_like(batch["labels"], IGNORE_INDEX)
    labels[:, :-1] = batch["labels"][:, 1:]
    documents = (batch["position_ids"] == 0).long().cumsum(1) - 1
    labels[:, :-1][documents[:, 1:] != documents[:, :-1]] = IGNORE_INDEX  # No loss across documents.
    return PackedWindows(batch["input_ids"], labels, batch["position_ids"], documents)


def test_the_loss_and_its_gradients_equal_trl(trainer: Any, our_model: Path) -> None:
    """A wrong attention mask or label shift changes both."""
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


RATE = 2e-5
STEPS = 20


@pytest.fixture(params=["random", "smollm2"])
def start(
    request: pytest.FixtureRequest, tmp_path: Path, tokenizer: Tokenizer, real_documents: list[str]
) -> tuple[Path, Path]:
    """A model with chat tokens, and examples that each fill a window."""
    from transformers import LlamaConfig, LlamaForCausalLM

    words = " ".join(real_documents).split()
    if request.param == "random":
        torch.manual_seed(0)
        shape = {"hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 4}
        config = LlamaConfig(vocab_size=tokenizer.vocab_size, max_position_embeddings=128, **shape)
        LlamaForCausalLM(config).save_pretrained(tmp_path / "plain")
        tokenizer.save(tmp_path / "plain")
        opened = add_chat_tokens(open_model(tmp_path / "plain", device="cpu"))
        directory, long, count = tmp_path / "model", 85, 90
        ids = {"bos_id": tokenizer.bos_id, "eos_id": tokenizer.eos_id, "pad_id": tokenizer.pad_id}
        save_model(directory, opened.model, **ids)
        opened.tokenizer.save(directory)
    else:
        directory, long, count = request.getfixturevalue("smollm2"), 300, STEPS // 2
    data = tmp_path / "pairs.jsonl"
    known = Tokenizer.load(directory)
    parts = [words[40 * part :][:long] for part in range(count)]
    parts = [part[: sum(len(known.encode(" ".join(part[:n]))) <= long for n in range(1, len(part)))] for part in parts]
    rows = [{"prompt": " ".join(part[:8]), "response": " ".join(part[8:])} for part in parts]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (tmp_path / "test.jsonl").write_text(json.dumps({"prompt": "Who?", "response": "I."}) + "\n", encoding="utf-8")
    return directory, data


def our_losses(model: Path, data: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Losses of the command with TRL's constants; its batches are kept in `BATCHES`."""
    BATCHES.clear()
    make = ExampleLoader.batch

    def kept(self: ExampleLoader, index: int) -> PackedWindows:
        made = make(self, index)
        BATCHES[len(made.input_ids), index] = made
        return made

    monkeypatch.setattr(ExampleLoader, "batch", kept)
    constants = ["adam_beta2=0.999", "adam_epsilon=1e-8", "warmup_ratio=0", "decay_ratio=1"]
    ours = ["dtype=float32", "compile=false", "num_evaluations=0", "truncate=true", "num_epochs=2"]
    settings = [word for setting in constants + ours for word in ("--set", setting)]
    words = ["finetune", "instruct", str(data), "--model", str(model), "--out", str(out), "--test"]
    words += [
        str(data.with_name("test.jsonl")),
        "--method",
        "full",
        "--optimizer",
        "adamw",
        "--learning-rate",
        str(RATE),
    ]
    with pytest.raises(SystemExit) as ended:
        main([*words, *settings])
    assert ended.value.code == 0
    return [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]


BATCHES: dict[tuple[int, int], PackedWindows] = {}


def their_rows(steps: int, rows: int) -> list[dict[str, list[int]]]:
    """Convert the windows of each step to TRL's format: ids, and which of them are trained."""
    found = []
    for index in range(steps):
        batch = BATCHES[rows, index]
        for ids, labels, documents in zip(batch.input_ids, batch.labels, batch.document_ids, strict=True):
            length = int(torch.nonzero(labels != IGNORE_INDEX).max()) + 2  # Up to the last predicted token.
            assert int(documents[length - 2]) == 0, "one example in a window"
            whole = [*ids[: length - 1].tolist(), int(labels[length - 2])]
            learned = [0, *(int(label != IGNORE_INDEX) for label in labels[: length - 1].tolist())]
            found.append({"input_ids": whole, "completion_mask": learned})
    return found


@pytest.fixture
def their_losses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Path, int, int], tuple[Any, list[float]]]:
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.setenv(name, "1")
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    losses: list[float] = []

    class Kept(SFTTrainer):  # type: ignore[misc]
        def compute_loss(self, *given: Any, **named: Any) -> Any:
            found = super().compute_loss(*given, **named)
            losses.append(float(found[0] if isinstance(found, tuple) else found))
            return found

    def trained(model: Path, steps: int, rows: int) -> tuple[Any, list[float]]:
        settings = SFTConfig(
            output_dir=str(tmp_path / "theirs"),
            learning_rate=RATE,
            max_steps=steps,
            per_device_train_batch_size=rows,
            train_sampling_strategy="sequential",
            completion_only_loss=True,
            max_length=None,
            bf16=False,
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            gradient_checkpointing=False,
        )
        trainer = Kept(
            model=AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32),
            args=settings,
            train_dataset=Dataset.from_list(their_rows(steps, rows)),
            processing_class=AutoTokenizer.from_pretrained(model),
        )
        trainer.train()
        return trainer.model, losses

    return trained


def test_the_command_trains_like_trl_at_the_same_learning_rate(
    start: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    their_losses: Callable[[Path, int, int], tuple[Any, list[float]]],
) -> None:
    """`--learning-rate 2e-5` multiplied the built-in rates, so the loss did not change."""
    model, data = start
    ours = our_losses(model, data, tmp_path / "ours", monkeypatch)
    plan = json.loads((tmp_path / "ours" / "plan.json").read_text())["plan"]
    assert plan["grad_accum_steps"] == 1
    assert len(ours) == plan["total_steps"] >= STEPS
    trained, theirs = their_losses(model, len(ours), plan["micro_batch_size"])
    pairs = list(zip(ours, theirs, strict=True))
    print("\n".join(f"{one:.6f} {other:.6f}" for one, other in pairs))
    assert max(abs(one - other) for one, other in pairs) < 1e-4

    # Losses could agree because nothing changes, so each parameter group must move as far as TRL's.
    before, after = load_model(model), load_model(tmp_path / "ours")
    named = dict(trained.named_parameters())
    for (name, old), (_, new) in zip(before.named_parameters(), after.named_parameters(), strict=True):
        moved, apart = (new - old).abs().max(), (new - named[name].detach()).abs().mean()
        assert moved > 0.3 * RATE * len(ours) / 2, name
        assert apart < 0.02 * moved, name
