"""Continued pretraining keeps the vocabulary, improves the loss on the new text, and rejects incompatible tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from groundup.commands import collect, evaluate, pretrain, tokenize
from groundup.core.artifact import Artifact, read
from groundup.core.errors import ConfigError, ResourceError
from groundup.hub import load_model
from groundup.hub.directory import read_full_config
from groundup.model.vocabulary import resize_token_embeddings
from groundup.tokenizer import Tokenizer
from groundup.train.initial_model import ShapeConfig, given_shape
from groundup.train.planner import Plan, shape_for_depth

QUICK = {"compile": False, "num_evaluations": 0, "threads": 1}
SMALL = {"dim": 64, "n_layers": 2, "context_length": 128}


def pretrained(shards: Path, out: Path, **settings: Any) -> Artifact:
    return pretrain.run(pretrain.PretrainConfig(token_shards=shards, out=out, **QUICK | settings))


def tokenized(corpus: Path, out: Path, **settings: Any) -> Path:
    tokenize.run(tokenize.TokenizeConfig(corpus=corpus, out=out, **settings))
    return out


@pytest.fixture(scope="module")
def root(real_documents: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return two corpora from one language reference (statements and types) and a base model of the first corpus."""
    root = tmp_path_factory.mktemp("runs")
    half = len(real_documents) // 2
    for name, documents in (("first", real_documents[:half]), ("second", real_documents[half:])):
        (root / name).mkdir()
        for number, text in enumerate(documents):
            (root / name / f"{number}.txt").write_text(text, encoding="utf-8")
        corpus = {"folder": root / name, "out": root / f"{name}-corpus"}
        collect.run(collect.CollectConfig(**corpus, validation_fraction=0.15, workers=1, min_bytes=50_000))
    tokenized(root / "first-corpus", root / "run" / "tokens", vocab_size=512)
    pretrained(root / "run" / "tokens", root / "run" / "base", tokens=60_000, shape=SMALL)
    tokenized(root / "second-corpus", root / "second-tokens", tokenizer=root / "run")
    return root


def test_continued_pretraining_improves_on_the_new_text(root: Path, tmp_path: Path) -> None:
    """Training starts from the model of a run, uses its tokenizer, and does not change the base model."""
    weights = (root / "run" / "base" / "model.safetensors").read_bytes()
    made = pretrained(root / "second-tokens", tmp_path / "on", model=root / "run", tokens=30_000)
    assert made.inputs["model"] == read(root / "run" / "base").digest
    held_out = made.facts["held_out"]
    assert held_out["verdict"] == "better"
    assert held_out["difference_interval"][1] < 0
    assert made.facts["base"] == str(root / "run")
    plan = Plan.from_json(made.facts["plan"])
    assert plan.model.context_length == 128
    assert plan.optimizer.matrix_lr < 0.02
    assert (root / "run" / "base" / "model.safetensors").read_bytes() == weights

    # The expected score is computed without the command, from the two model directories and the whole validation set.
    def evaluated(directory: Path) -> dict[str, Any]:
        config = {"model": directory, "out": tmp_path / f"report-{directory.name}", "corpus": root / "second-corpus"}
        return evaluate.run(evaluate.EvaluateConfig(**config, compressors=False, samples=0)).facts

    after, before = evaluated(tmp_path / "on"), evaluated(root / "run" / "base")
    assert after["bpb"] < before["bpb"] - 0.02
    assert after["began_from"]["before"] == pytest.approx(before["bpb"], abs=1e-6)
    assert after["began_from"]["verdict"] == "better"
    assert "its base model" in (tmp_path / "report-on" / "report.md").read_text(encoding="utf-8")
    assert "began_from" not in before

    again = pretrained(root / "second-tokens", tmp_path / "on", model=root / "run", tokens=30_000)
    assert again.finished_at == made.finished_at


def test_new_tokens_are_initialized_from_their_pieces_and_trained(root: Path, tmp_path: Path) -> None:
    tokens = tokenized(root / "second-corpus", tmp_path / "tokens", tokenizer=root / "run" / "base", extend=100)
    base, extended = Tokenizer.load(root / "run" / "base"), Tokenizer.load(tokens / "tokenizer")
    assert extended.vocab_size == base.vocab_size + 100
    assert read(tokens).facts["bytes_per_token"] > 1.05 * read(root / "second-tokens").facts["bytes_per_token"]

    made = pretrained(tokens, tmp_path / "on", model=root / "run" / "base", tokens=30_000)
    assert made.facts["held_out"]["verdict"] == "better"
    assert read_full_config(tmp_path / "on").vocab_size == 640  # 612, rounded up to a multiple of 64
    model = load_model(tmp_path / "on")
    config = {"model": tmp_path / "on", "out": tmp_path / "report", "corpus": root / "second-corpus"}
    ours = evaluate.run(evaluate.EvaluateConfig(**config, compressors=False, samples=0)).facts["bpb"]
    config |= {"model": root / "run" / "base", "out": tmp_path / "report-base"}
    before = evaluate.run(evaluate.EvaluateConfig(**config, compressors=False, samples=0)).facts["bpb"]
    assert ours < before
    assert model.lm_head.weight.shape[0] == 640


@pytest.mark.parametrize("tied", [False, True])
def test_new_embedding_rows_are_means_and_old_rows_are_unchanged(tied: bool, tiny_model: Any) -> None:
    model = tiny_model(64, tie_embeddings=tied)
    pieces = {60: (1, 2), 64: (3, 4, 4), 65: (5,)}  # row 60 is unused
    larger = resize_token_embeddings(model, 70, pieces)
    ids = torch.tensor([[1, 2, 3, 50]])
    torch.testing.assert_close(larger(ids)[..., :60], model(ids)[..., :60], atol=1e-6, rtol=0)
    for matrix, old in (
        (larger.lm_head.weight, model.lm_head.weight),
        (larger.model.embed_tokens.weight, model.model.embed_tokens.weight),
    ):
        for row, known in pieces.items():
            torch.testing.assert_close(matrix[row], sum(old[i] for i in known) / len(known))
        torch.testing.assert_close(matrix[69], old.mean(0))
    assert (larger.lm_head.weight is larger.model.embed_tokens.weight) == tied


def test_bf16_weights_are_trained_in_fp32(root: Path, tmp_path: Path) -> None:
    """Imported models often have bf16 weights. The resolution of bf16 is too low for small updates."""
    base = tmp_path / "imported"
    base.mkdir()
    for path in (root / "run" / "base").glob("*.json"):
        if path.name != "artifact.json":
            (base / path.name).write_bytes(path.read_bytes())
    half = {name: tensor.bfloat16() for name, tensor in load_file(root / "run" / "base" / "model.safetensors").items()}
    save_file(half, base / "model.safetensors", metadata={"format": "pt"})
    pretrained(root / "second-tokens", tmp_path / "on", model=base, tokens=2_000)
    trained = load_file(tmp_path / "on" / "model.safetensors")
    assert {tensor.dtype for tensor in trained.values()} == {torch.float32}
    assert any(not torch.equal(tensor.bfloat16().float(), tensor) for tensor in trained.values())


def test_tokens_of_another_vocabulary_are_rejected_before_training(root: Path, tmp_path: Path) -> None:
    """All token IDs are below 512, so training would run without an error but with the wrong tokens."""
    other = tokenized(root / "second-corpus", tmp_path / "other", vocab_size=512)
    with pytest.raises(ConfigError, match="groundup tokenize CORPUS --tokenizer"):
        pretrained(other, tmp_path / "on", model=root / "run", tokens=2_000)
    assert not (tmp_path / "on").exists()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"shape": {"n_layers": 3}, "tokens": 1}, "only shape.context_length"),
        ({"shape": {"preset": "gpt2"}, "tokens": 1}, "only shape.context_length"),
        ({"depth": 4}, "minutes or tokens instead of depth"),
        ({"shape": {"context_length": 4096}, "tokens": 1}, "context length, 128"),
    ],
)
def test_the_shape_of_a_base_model_cannot_be_set(root: Path, tmp_path: Path, wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        pretrained(root / "second-tokens", tmp_path / "on", model=root / "run", **wrong)


def test_a_preset_is_trained_with_overridden_fields(root: Path, tmp_path: Path) -> None:
    shape = {"preset": "smollm2-135m", "n_layers": 2, "dim": 48, "n_heads": 3, "n_kv_heads": 1, "context_length": 64}
    made = pretrained(root / "run" / "tokens", tmp_path / "base", tokens=1_000, shape=shape)
    config = read_full_config(tmp_path / "base")
    assert (config.family, config.n_layers, config.dim, config.head_dim, config.ffn_dim) == ("llama", 2, 48, 16, 128)
    assert (config.rope_theta, config.norm_eps, config.tie_embeddings) == (100_000.0, 1e-5, True)
    assert config.vocab_size == 512
    assert made.config["shape"]["preset"] == "smollm2-135m"


def test_attention_windows_of_a_preset_match_the_number_of_layers() -> None:
    shape = ShapeConfig(preset="gemma3-1b", n_layers=7, dim=32, n_heads=2, n_kv_heads=1)
    config = shape_for_depth(7, 512, given_shape(shape))
    assert [config.slides(layer) for layer in range(7)] == [True, True, True, True, True, False, True]
    assert (config.head_dim, config.query_scalar) == (16, None)


@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        ({"shape": {"preset": "gpt3-175b"}, "tokens": 1_000_000}, ResourceError, "TB of memory|GB of memory"),
        ({"shape": {"preset": "gtp2"}, "tokens": 1}, ConfigError, "Did you mean gpt2"),
        ({"shape": {"preset": "gpt2", "family": "llama"}, "tokens": 1}, ConfigError, "belongs to the family gpt2"),
        ({"shape": {"preset": "gpt2"}, "depth": 6}, ConfigError, "minutes or tokens instead of depth"),
    ],
)
def test_invalid_presets_are_rejected(
    root: Path, tmp_path: Path, wrong: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        pretrained(root / "run" / "tokens", tmp_path / "base", **wrong)


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        (SMALL | {"family": "gpt2", "n_heads": 2}, "learned position embeddings"),
        (SMALL | {"context_length": 62}, "62 tokens cannot be split"),
    ],
)
def test_short_contexts_need_rotary_positions_and_equal_parts(
    root: Path, tmp_path: Path, shape: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        pretrained(root / "run" / "tokens", tmp_path / "base", tokens=1_000, shape=shape, short_context_ratio=0.5)


def test_teachers_are_trained_once_if_the_run_is_interrupted(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is interrupted before the second teacher, and again has only that one to train."""
    from groundup.train import teachers

    train, trained = teachers._train_teacher, []

    def interrupted(trainer: Any, settings: Any, *rest: Any) -> None:
        if len(trained) == 1:
            trained.append(-1)
            raise KeyboardInterrupt
        trained.append(settings.seed)
        train(trainer, settings, *rest)

    monkeypatch.setattr(teachers, "_train_teacher", interrupted)
    settings: dict[str, Any] = {"tokens": 60_000, "shape": SMALL, "num_teachers": 2}
    with pytest.raises(KeyboardInterrupt):
        pretrained(root / "run" / "tokens", tmp_path / "out", **settings)
    made = pretrained(root / "run" / "tokens", tmp_path / "out", **settings)
    assert trained == [1, -1, 2]
    assert made.facts["plan"]["num_teachers"] == 2 and made.facts["plan"]["token_dropout"] == 0
    assert not (tmp_path / "out" / "checkpoints").exists()


def test_the_time_limit_is_divided_among_teachers_and_model(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A teacher that resumes has another time limit, but the steps of its checkpoint."""
    from groundup.train import teachers
    from groundup.train.planner.forecast import distillation_runs

    started: list[Any] = []

    def interrupted(trainer: Any, batch: Any, steps: Any) -> None:
        started.append(steps)
        raise KeyboardInterrupt

    monkeypatch.setattr(teachers.Trainer, "train", interrupted)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            pretrained(root / "run" / "tokens", tmp_path / "out", minutes=0.2, shape=SMALL, num_teachers=2)
    assert all(0 < steps.seconds < 12 / distillation_runs(2) for steps in started)
    assert started[0].seconds != started[1].seconds and started[0].digest == started[1].digest


def test_a_trained_model_is_a_teacher_if_it_has_the_vocabulary(root: Path, tmp_path: Path) -> None:
    tokens, teacher = root / "run" / "tokens", root / "run" / "base"
    made = pretrained(tokens, tmp_path / "student", tokens=30_000, shape=SMALL, teachers=(teacher,))
    assert made.inputs["teacher 1"] == read(teacher).digest
    tokenized(root / "first-corpus", tmp_path / "other", vocab_size=384)
    with pytest.raises(ConfigError, match="tokenizer with 384 ids, model with 512"):
        pretrained(tmp_path / "other", tmp_path / "refused", tokens=30_000, shape=SMALL, teachers=(teacher,))
