"""Instruction tuning works for base models without chat tokens (GPT-2 and Llama models saved by transformers)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from external_tokenizers import MAKERS, save
from groundup.commands import export_gguf
from groundup.commands.finetune_instruct import FinetuneInstructConfig, run
from groundup.core import artifact
from groundup.core.config import load
from groundup.core.console import Console
from groundup.core.errors import ConfigError
from groundup.core.types import Message
from groundup.hub.loading import open_model
from groundup.tokenizer import ChatTemplate, Tokenizer

transformers = pytest.importorskip("transformers")

# The weights are so large that the untrained language-model head prefers some tokens.
SMALL: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "initializer_range": 0.2}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2Config", SMALL | {"n_positions": 128, "tie_word_embeddings": True}),
    "llama3": ("LlamaConfig", SMALL | {"intermediate_size": 64, "max_position_embeddings": 128}),
    "llama2": ("LlamaConfig", SMALL | {"intermediate_size": 64, "max_position_embeddings": 128}),
}
METHODS: dict[str, dict[str, Any]] = {
    "full": {"learning_rate_scale": 1.0},
    "merged": {"lora": {"rank": 8}, "learning_rate": 0.01, "embedding_learning_rate": 0.01},
}
TALK = [
    Message("system", "Be brief."),
    Message("user", "Name a colour, 日本?"),
    Message("assistant", "Green.\nOr red."),
    Message("user", "Why?"),
]


@pytest.fixture(
    scope="module", params=[*((kind, "full") for kind in KINDS), ("gpt2", "merged"), ("llama3", "merged")], ids="-".join
)
def fine_tuned(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, real_documents: list[str]
) -> tuple[Path, Path]:
    """Return the base model and the fine-tuned model."""
    family, method = request.param
    directory = tmp_path_factory.mktemp(f"{family}-{method}")
    base = save(directory / "base", MAKERS[family](real_documents))
    words = Tokenizer.load(base)
    kind, shape = KINDS[family]
    torch.manual_seed(0)
    config = getattr(transformers, kind)(
        vocab_size=words.vocab_size, bos_token_id=words.bos_id, eos_token_id=words.eos_id, **shape
    )
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(base)
    paragraphs = [" ".join(part.split()) for text in real_documents for part in text.split("\n\n")]
    pairs = [p.split(" ") for p in dict.fromkeys(paragraphs) if len(p.split(" ")) > 12][:400]
    data = directory / "pairs.jsonl"
    lines = [{"prompt": " ".join(words[:6]), "response": " ".join(words[6:12])} for words in pairs]
    data.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    keys = {"data": str(data), "model": str(base), "out": str(directory / "chat"), "threads": 1, "compile": False}
    run(
        load(FinetuneInstructConfig, keys | {"num_epochs": 2.0, "method": method} | METHODS[method]),
        console=Console(quiet=True),
    )
    return base, directory / "chat"


def test_transformers_loads_the_model_and_renders_the_same_conversations(fine_tuned: tuple[Path, Path]) -> None:
    """If a special token is missing in one of the files, it is tokenized as text, and the model never ends a turn."""
    words = transformers.AutoTokenizer.from_pretrained(fine_tuned[1])
    peer = transformers.AutoModelForCausalLM.from_pretrained(fine_tuned[1])
    ours = open_model(fine_tuned[1], device="cpu")
    said = [{"role": message.role, "content": message.content} for message in TALK]
    ids = words.apply_chat_template(said, add_generation_prompt=True, return_dict=True)["input_ids"]
    template = ChatTemplate(ours.tokenizer)
    assert ids == template.encode(TALK, add_generation_prompt=True)
    start, end = (words.convert_tokens_to_ids(name) for name in ("<|im_start|>", "<|im_end|>"))
    assert ids.count(start) == 5 and ids.count(end) == 4
    assert words.decode([end], skip_special_tokens=True) == ""
    assert len(words) <= peer.config.vocab_size == ours.model.config.vocab_size
    assert end in peer.generation_config.eos_token_id
    with torch.no_grad():
        torch.testing.assert_close(
            peer(torch.tensor([ids])).logits, ours.model(torch.tensor([ids])), atol=1e-4, rtol=1e-4
        )


def test_existing_tokens_keep_their_ids(fine_tuned: tuple[Path, Path], real_documents: list[str]) -> None:
    """If token IDs changed, the embeddings would belong to other tokens."""
    before, after = (transformers.AutoTokenizer.from_pretrained(directory) for directory in fine_tuned)
    for text in [*(document[:300] for document in real_documents[:20]), "日本 😀  x\n\n"]:
        assert after(text)["input_ids"] == before(text)["input_ids"]


def test_the_model_learns_to_answer_and_to_stop(fine_tuned: tuple[Path, Path]) -> None:
    facts = artifact.read(fine_tuned[1]).facts
    assert facts["held_out"]["difference"]["interval"][1] < 0
    rows = open_model(fine_tuned[1], device="cpu").model.config.vocab_size
    guess = torch.log(torch.tensor(float(rows)))
    assert facts["held_out"]["end_of_turn"]["loss"] < guess
    assert facts["held_out"]["base"]["format"] != "the chat template"  # the base model has no chat tokens


def test_saving_only_adapters_is_rejected(fine_tuned: tuple[Path, Path], tmp_path: Path) -> None:
    """The base model does not have embeddings for the new tokens, so adapters alone would not be enough."""
    keys = {
        "data": str(fine_tuned[0].parent / "pairs.jsonl"),
        "model": str(fine_tuned[0]),
        "out": str(tmp_path / "chat"),
    }
    with pytest.raises(ConfigError, match="method = merged"):
        run(load(FinetuneInstructConfig, keys | {"method": "lora"}), console=Console(quiet=True))


def test_the_fine_tuned_model_can_be_exported(
    fine_tuned: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from groundup.evaluation.verification import peers

    monkeypatch.setattr(peers, "missing", lambda engine: f"{engine} is not installed")
    out = tmp_path / "m.gguf"
    export_gguf.run(export_gguf.ExportGgufConfig(model=fine_tuned[1], out=out), console=Console(quiet=True))
    import gguf

    fields = gguf.GGUFReader(out).fields
    names = fields["tokenizer.ggml.tokens"].contents()
    kinds = fields["tokenizer.ggml.token_type"].contents()
    for name in ("<|im_start|>", "<|im_end|>"):
        assert kinds[names.index(name)] == gguf.TokenType.CONTROL
    assert '<|im_end|>"' in (tmp_path / "Modelfile").read_text(encoding="utf-8")
