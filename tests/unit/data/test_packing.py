"""Packed examples: an example must not be affected by others in its window."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from groundup.core.errors import ConfigError, DataError
from groundup.core.types import IGNORE_INDEX, SHARED_PREFIX
from groundup.data import ExampleLoader
from groundup.data.loader import BatchPlacement, PackedWindows
from groundup.model import Transformer
from groundup.train.objectives import NextToken

PAD = 1
Labeled = tuple[list[int], list[bool]]


@pytest.fixture(scope="module")
def examples() -> list[Labeled]:
    """Two hundred examples of 3 to 40 tokens, with an untrained prompt and an untrained end."""
    draw = np.random.default_rng(0)
    made = []
    for _ in range(200):
        ids = [0, *draw.integers(2, 64, size=draw.integers(2, 40)).tolist()]
        start = int(draw.integers(1, len(ids)))
        made.append((ids, [start <= place < max(start + 1, len(ids) - 1) for place in range(len(ids))]))
    return made


def loader(examples: list[Labeled], **changes: object) -> ExampleLoader:
    sizes = {"context_length": 64, "batch_size": 4, "pad_id": PAD, "seed": 7}
    return ExampleLoader(examples, **sizes | changes)  # type: ignore[arg-type]


def same(a: PackedWindows, b: PackedWindows) -> bool:
    return all(torch.equal(getattr(a, f), getattr(b, f)) for f in ("input_ids", "labels", "positions", "document_ids"))


def test_packed_loss_is_the_sum_of_single_examples(
    examples: list[Labeled], tiny_model: Callable[..., Transformer]
) -> None:
    """Attention across examples, wrong positions or shifted labels would change it (Hugging Face #33950)."""
    model, objective = tiny_model(64), NextToken()
    packed = loader(examples, batch_size=1)
    together = sum(objective(model, packed.batch(i))[0].item() for i in range(packed.n_rows))
    alone = 0.0
    for ids, trained in examples:
        logits = model(torch.tensor([ids]))[0].log_softmax(-1)
        alone -= sum(logits[i - 1, ids[i]].item() for i in range(1, len(ids)) if trained[i])
    assert together == pytest.approx(alone, rel=1e-5)


PREFIX = list(range(2, 22))


@pytest.fixture(scope="module")
def chats() -> list[Labeled]:
    """Chats of two kinds that begin with the same 10 tokens, texts without prompt, and one chat of a third kind."""
    draw = np.random.default_rng(1)
    made: list[Labeled] = []
    for number in range(240):
        prefix = [PREFIX, [*PREFIX[:10], *range(40, 55)], []][number % 3]
        rest = draw.integers(22, 40, size=draw.integers(6, 20)).tolist()
        made.append(([0, *prefix, *rest], [False] * (len(prefix) + 4) + [True] * (len(rest) - 3)))
    made.append(([0, *PREFIX[:12], 60, 61, 62], [False] * 15 + [True]))
    return made


def test_shared_prefixes_change_no_loss(chats: list[Labeled], tiny_model: Callable[..., Transformer]) -> None:
    """Each window contains its prefix once, and the loss is that of examples which contain it themselves."""
    model, objective = tiny_model(64), NextToken()
    packed = loader(chats, batch_size=1)
    together, seen = 0.0, 0
    for index in range(packed.n_rows):
        batch = packed.batch(index)
        together += objective(model, batch)[0].item()
        seen += int((batch.document_ids == SHARED_PREFIX).sum())
        assert batch.input_ids[batch.document_ids == SHARED_PREFIX].tolist() in (
            [],
            [0, *PREFIX],
            [0, *PREFIX[:10], *range(40, 55)],
            [0, *PREFIX[:10]],
        )
    alone = 0.0
    for ids, trained in chats:
        logits = model(torch.tensor([ids]))[0].log_softmax(-1)
        alone -= sum(logits[i - 1, ids[i]].item() for i in range(1, len(ids)) if trained[i])
    assert together == pytest.approx(alone, rel=1e-5)
    assert packed.shared_tokens == 80 * 21 + 80 * 26 + 11 - seen
    assert packed.trained_tokens == sum(sum(trained) for _, trained in chats)


def test_a_prefix_ends_before_the_first_label() -> None:
    """The first label of an example is computed from its own last prompt token."""
    same: list[Labeled] = [([0, *range(2, 30), n], [False] * 12 + [True] * 18) for n in range(30, 62)]
    packed = loader(same, batch_size=1)
    batch = packed.batch(0)
    assert (batch.document_ids == SHARED_PREFIX).sum() == 11
    assert batch.labels[batch.document_ids == SHARED_PREFIX].unique().tolist() == [IGNORE_INDEX]


def test_few_examples_share_no_prefix() -> None:
    """Windows that only they fill would be half empty."""
    assert loader([([0, *PREFIX, 30, 31], [False] * 22 + [True])] * 5, batch_size=1).shared_tokens == 0


def test_windows_are_nearly_full(examples: list[Labeled]) -> None:
    """Padding costs time without training anything."""
    packed = loader(examples, batch_size=1)
    used = sum(max(i for i, t in enumerate(trained) if t) for _, trained in examples)
    assert used / (packed.n_rows * 64) > 0.93


def test_any_batch_can_be_loaded_first(examples: list[Labeled]) -> None:
    in_order = [loader(examples).batch(i) for i in range(30)]
    for index in (29, 0, 13):
        assert same(loader(examples).batch(index), in_order[index])


def test_ranks_share_the_same_global_batch(examples: list[Labeled]) -> None:
    alone = loader(examples, batch_size=6).batch(5)
    ranks = [loader(examples, batch_size=2, place=BatchPlacement(rank, 3)).batch(5) for rank in range(3)]
    joined = PackedWindows(
        *(torch.cat([getattr(b, f) for b in ranks]) for f in ("input_ids", "labels", "positions", "document_ids"))
    )
    assert same(joined, alone)


def test_each_epoch_and_seed_has_another_order(examples: list[Labeled]) -> None:
    packed = loader(examples, batch_size=1)
    epochs = [[packed.batch(e * packed.n_rows + i).input_ids.tolist() for i in range(packed.n_rows)] for e in range(3)]
    assert epochs[0] != epochs[1] != epochs[2]
    assert sorted(map(str, epochs[0])) == sorted(map(str, epochs[1])) == sorted(map(str, epochs[2]))
    assert not same(packed.batch(0), loader(examples, batch_size=1, seed=8).batch(0))


def test_the_number_of_labels_matches_the_batches(examples: list[Labeled]) -> None:
    """The progress bar and the report show it before the first step."""
    packed = loader(examples)
    seen = 0
    for index in range(25):
        assert packed.labels_until(index) == seen
        seen += int((packed.batch(index).labels != IGNORE_INDEX).sum())
    assert packed.trained_tokens == sum(sum(trained[1:]) for _, trained in examples)


def test_long_examples_are_dropped_or_truncated(examples: list[Labeled]) -> None:
    long: Labeled = ([0, *range(2, 60), *range(2, 60)], [False] * 20 + [True] * 97)
    hopeless: Labeled = ([0] * 200, [False] * 199 + [True])
    packed = loader([*examples, long, hopeless])
    assert (packed.too_long, packed.n_examples) == (2, len(examples))
    cut = loader([*examples, long, hopeless], cut=True)
    assert (cut.too_long, cut.without_labels, cut.n_examples) == (2, 1, len(examples) + 1)
    assert cut.trained_tokens == packed.trained_tokens + 64 - 19


def test_an_example_of_context_length_fits() -> None:
    """Its last token is only a label, so one token more than the context fits."""
    ids = list(range(2, 67))
    packed = loader([(ids, [False] * 64 + [True])], batch_size=1)
    assert packed.batch(0).input_ids.tolist() == [ids[:-1]]
    assert packed.batch(0).labels[0, -1] == ids[-1]


def test_examples_without_trained_tokens_are_rejected_before_step_1() -> None:
    """Other trainers report a loss over no token."""
    with pytest.raises(DataError, match="1 do not have trained tokens"):
        loader([([0, 5, 6], [False, False, False])])
    with pytest.raises(DataError, match="1 are longer than 64"):
        loader([([0] * 70, [False] * 69 + [True])])
    with pytest.raises(DataError, match="0 examples"):
        loader([])


def test_invalid_sizes_are_rejected(examples: list[Labeled]) -> None:
    for changes in ({"context_length": 0}, {"batch_size": 0}, {"place": BatchPlacement(rank=1)}):
        with pytest.raises(ConfigError, match="rank"):
            loader(examples, **changes)
