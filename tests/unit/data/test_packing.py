"""Packed examples: an example must not be affected by others in its window."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from groundup.core.errors import ConfigError, DataError
from groundup.core.types import IGNORE_INDEX, SHARED_PREFIX
from groundup.data import ExampleLoader
from groundup.data.conversations.shared_prefixes import group_by_prefix
from groundup.data.tokens.loader import BatchPlacement, PackedWindows
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


INSTRUCTION = [0, *range(2, 21)]  # 20 tokens


@pytest.fixture(scope="module")
def chats() -> list[Labeled]:
    """Questions about 30 passages of 20 tokens after the same instruction, other prompts after it, and texts."""
    draw = np.random.default_rng(1)

    def tokens(low: int, high: int) -> list[int]:
        return [int(token) for token in draw.integers(22, 64, size=draw.integers(low, high))]

    made: list[Labeled] = []
    for _ in range(30):
        passage = tokens(20, 21)
        for _ in range(draw.integers(1, 5)):
            question, answer = tokens(3, 6), tokens(1, 4)
            prompt = [*INSTRUCTION, *passage, *question]
            made.append(([*prompt, *answer], [False] * len(prompt) + [True] * len(answer)))
        made.append(([*INSTRUCTION, *tokens(10, 12)], [False] * 25 + [True] * 5 + [False] * 10))
        made.append(([0, *tokens(8, 30)], [True] * 40))
    return [(ids, trained[: len(ids)]) for ids, trained in made]


def test_shared_prefixes_change_no_loss(chats: list[Labeled], tiny_model: Callable[..., Transformer]) -> None:
    """Each group contains its prefix once, and the loss is that of examples which contain it themselves."""
    model, objective = tiny_model(64), NextToken()
    packed = loader(chats, batch_size=1)
    together, computed = 0.0, 0
    for index in range(packed.n_rows):
        batch = packed.batch(index)
        together += objective(model, batch)[0].item()
        padding = batch.document_ids == batch.document_ids.max()
        computed += 64 - int(padding.sum()) * bool((batch.labels[padding] == IGNORE_INDEX).all())
    alone = tokens = 0.0
    for ids, trained in chats:
        logits = model(torch.tensor([ids]))[0].log_softmax(-1)
        alone -= sum(logits[i - 1, ids[i]].item() for i in range(1, len(ids)) if trained[i])
        tokens += max(i for i, each in enumerate(trained) if each)
    assert together == pytest.approx(alone, rel=1e-5)
    assert packed.trained_tokens == sum(sum(trained[1:]) for _, trained in chats)
    assert computed + packed.shared_tokens == tokens
    assert computed < 0.7 * tokens


def test_questions_about_a_passage_are_next_to_each_other(chats: list[Labeled]) -> None:
    packed = loader(chats, batch_size=1)
    passages = 0
    for index in range(packed.n_rows):
        batch = packed.batch(index)
        passages += bool((batch.document_ids[0] == SHARED_PREFIX).sum() >= 40)
    assert passages > 10  # a window has space for the instruction, a passage, and one to four questions


def test_a_prefix_ends_before_the_first_label() -> None:
    """The first label of an example is computed from its own last prompt token."""
    same: list[Labeled] = [([0, *range(2, 30), n], [False] * 20 + [True] * 10) for n in range(30, 62)]
    batch = loader(same, batch_size=1).batch(0)
    in_prefix = batch.document_ids == SHARED_PREFIX
    assert in_prefix.sum() == 19
    assert batch.labels[in_prefix].unique().tolist() == [IGNORE_INDEX]


def test_a_short_or_rare_common_beginning_is_not_shared() -> None:
    """A pair with 24 equal tokens would lose more of the 20 tokens that all examples share than it saves."""
    common = [([*INSTRUCTION, n, n], [False] * 21 + [True]) for n in range(30, 62)]
    pair = [([*INSTRUCTION, *range(22, 38), n], [False] * 36 + [True]) for n in (40, 41)]
    groups = group_by_prefix([(np.array(ids), np.where(trained, 1, IGNORE_INDEX)) for ids, trained in common + pair])
    assert [(prefix, len(members)) for prefix, members in groups] == [(20, 34), (0, 0)]
    short = [([*range(10), n, n], [False] * 11 + [True]) for n in range(30, 62)]
    assert loader(short).shared_tokens == 0


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
