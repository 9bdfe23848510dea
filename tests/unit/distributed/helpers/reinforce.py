"""REINFORCE (Williams 1992) with a leave-one-out baseline (arXiv:2402.14740), as a small on-policy objective."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pydoc_data.topics import topics

import torch
from torch import Tensor, nn

from groundup.core.types import IGNORE_INDEX
from groundup.data import PackedWindows
from groundup.distributed import unwrapped
from groundup.inference import GenerationRequest
from groundup.inference.batch import complete_all
from groundup.tokenizer import Tokenizer, train_tokenizer
from groundup.train.objectives import Metrics

PROMPT_TOKENS, SAMPLED_TOKENS, SAMPLES = 4, 6, 4
REWARDED = 128  # reward 1 for a token below this id, otherwise 0


@dataclass(frozen=True, slots=True)
class Rollouts:
    """Prompts; after `prepare`, sampled rows with their labels, (B, T), and rewards, (B,)."""

    prompts: Tensor
    input_ids: Tensor
    labels: Tensor
    rewards: Tensor

    @classmethod
    def of(cls, batch: PackedWindows) -> Rollouts:
        return cls(batch.input_ids[:, :PROMPT_TOKENS], torch.empty(0), torch.empty(0), torch.empty(0))


@cache
def tokenizer() -> Tokenizer:
    return train_tokenizer(list(topics.values()), 320)


class Reinforce:
    """REINFORCE objective with the mean reward of the prompt's other samples as baseline.

    Args:
        stops: Whether some tokens end a sample, so that ranks generate different numbers of steps.
    """

    def __init__(self, stops: bool) -> None:
        self._stops = stops

    def prepare(self, batch: Rollouts, model: nn.Module) -> Rollouts:
        stop_ids = tuple(range(128, 160)) if self._stops else ()
        requests = [
            GenerationRequest(
                prompt=tuple(ids), max_tokens=SAMPLED_TOKENS, stop_ids=stop_ids, seed=SAMPLES * hash_of(ids) + n
            )
            for ids in batch.prompts.tolist()
            for n in range(SAMPLES)
        ]
        with unwrapped(model, gather_layers=self._stops) as policy:
            completions = complete_all(policy, tokenizer(), requests, dtype="float32")
        sampled = torch.full((len(requests), SAMPLED_TOKENS), IGNORE_INDEX)
        for row, each in zip(sampled, completions, strict=True):
            row[: len(each.token_ids)] = torch.tensor(each.token_ids)
        ids = torch.cat([batch.prompts.repeat_interleave(SAMPLES, 0), sampled], 1)
        labels = ids[:, 1:].clone()
        labels[:, : PROMPT_TOKENS - 1] = IGNORE_INDEX
        rewards = ((sampled >= 0) & (sampled < REWARDED)).float().mean(1)
        return Rollouts(batch.prompts, ids[:, :-1].clamp(min=0), labels, rewards)

    def normalizer(self, batch: Rollouts) -> Tensor:
        return (batch.labels != IGNORE_INDEX).sum()

    def __call__(self, model: nn.Module, batch: Rollouts) -> tuple[Tensor, Metrics]:
        nll = model(batch.input_ids, labels_BT=batch.labels, reduction="none").sum(-1)
        of_prompt = batch.rewards.view(-1, SAMPLES)
        advantages = (of_prompt - of_prompt.mean(1, keepdim=True)).flatten() * SAMPLES / (SAMPLES - 1)
        loss = (advantages * nll).sum()
        counted = len(batch.rewards)
        return loss, {"loss": (loss.detach(), counted), "reward": (batch.rewards.sum(), counted)}


def hash_of(ids: list[int]) -> int:
    """Return a seed that does not depend on the rank."""
    return sum(token * 257**place for place, token in enumerate(ids))
