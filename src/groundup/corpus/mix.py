"""The data mixture: computation of the number of epochs of each source that gives the requested proportions.

GPT-3 (Brown et al. 2020, table 2.2) weights sources by quality instead of size. Small sources of high quality are
repeated, and only a part of large, noisy sources is used. Temperature sampling is from multilingual BERT and XLM-R
(Conneau et al. 2020). With temperature sampling, the share of each source in the mixture is proportional to
size ** (1 / temperature).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from pydantic import model_validator

from groundup.core.config import Config, nearest, setting
from groundup.core.errors import ConfigError


class MixSettings(Config):
    """The mixture settings `[collect.mix]`. Only one of `weights`, `epochs` and `temperature` can be set."""

    weights: dict[str, float] = setting({}, help="relative weight of each source, e.g. {web = 60, wiki = 3}")
    epochs: dict[str, float] = setting(
        {}, help="number of epochs of each source (instead of weights), e.g. {web = 0.44, wiki = 3.4}"
    )
    temperature: float | None = setting(
        None,
        help="sampling temperature (instead of weights): source proportions are size ** (1 / temperature); 1 means "
        "proportional to size, a higher temperature gives more equal proportions",
        ge=1,
    )
    budget_tokens: int | None = setting(
        None, help="number of tokens in the mixture; default: as many as the text of all sources", gt=0
    )
    bytes_per_token: float = setting(
        4.0,
        help="estimated bytes per token, to convert budget_tokens to bytes before the tokenizer is trained",
        gt=0,
    )
    max_epochs: float = setting(
        4.0,
        help="maximum number of epochs of a source; more than 4 epochs help little (Muennighoff et al. 2023)",
        gt=0,
    )

    @model_validator(mode="after")
    def _check_proportions(self) -> Self:
        given = [name for name in ("weights", "epochs", "temperature") if getattr(self, name)]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} cannot be combined; set one of them")
        for name in ("weights", "epochs"):
            for source, value in getattr(self, name).items():
                if value < 0:
                    raise ValueError(f"{name} of {source!r} is {value:g}; it must not be negative")
        if self.weights and not sum(self.weights.values()) > 0:
            raise ValueError("all weights are 0; at least one must be positive")
        return self

    @property
    def enabled(self) -> bool:
        """Whether any setting of a mixture is set."""
        return bool(self.weights or self.epochs or self.temperature or self.budget_tokens)

    def require_known(self, sources: list[str]) -> None:
        """Check that the keys of `weights` or `epochs` are exactly the names of these sources.

        Raises:
            ConfigError: A key is not the name of a source, or a source has no value.
        """
        for key, table in (("weights", self.weights), ("epochs", self.epochs)):
            for name in table:
                if name not in sources:
                    near = nearest(name, sources)
                    raise ConfigError(
                        f"unknown source {name!r} in mix.{key}",
                        rule=f"the sources of this corpus are {', '.join(sources)}",
                        fix=f"Did you mean {near}?" if near else "Use the name of a source.",
                    )
            if table and (missing := [name for name in sources if name not in table]):
                raise ConfigError(
                    f"no value for {', '.join(missing)} in mix.{key}",
                    rule="a mixture needs a value for each source",
                    fix=f"Add {missing[0]} = 0 to exclude the source, or a positive number.",
                )


@dataclass(frozen=True, slots=True)
class Share:
    """The share of one source in a mixture.

    Attributes:
        epochs: Number of passes over the text of the source.
        target: Requested fraction of the mixture, from 0 to 1.
        limited: Whether `max_epochs` limits the number of epochs.
    """

    epochs: float
    target: float
    limited: bool = False


def mixture(settings: MixSettings, sizes: Mapping[str, int]) -> dict[str, Share]:
    """Return the share of each source in the mixture.

    If `max_epochs` limits a source, its excess is distributed to the other sources in proportion to their weights. If
    `max_epochs` limits all sources, the mixture is smaller than the budget.

    Args:
        settings: The mixture settings.
        sizes: Bytes of training text of each source.
    """
    if settings.epochs:
        requested = {name: settings.epochs[name] * size for name, size in sizes.items()}
        total = sum(requested.values()) or 1
        factor = settings.budget_tokens * settings.bytes_per_token / total if settings.budget_tokens else 1.0
        epochs = {name: settings.epochs[name] * factor for name in sizes}
        limit = settings.max_epochs
        return {name: Share(min(epochs[name], limit), requested[name] / total, epochs[name] > limit) for name in sizes}
    if settings.weights:
        weights = {name: settings.weights[name] if size else 0.0 for name, size in sizes.items()}
    else:
        weights = {name: size ** (1 / (settings.temperature or 1)) for name, size in sizes.items()}
    weight_sum = sum(weights.values()) or 1
    targets = {name: weight / weight_sum for name, weight in weights.items()}
    budget = settings.budget_tokens * settings.bytes_per_token if settings.budget_tokens else float(sum(sizes.values()))
    return _fill(targets, sizes, budget, settings.max_epochs)


def _fill(targets: Mapping[str, float], sizes: Mapping[str, int], budget: float, max_epochs: float) -> dict[str, Share]:
    """Distribute the budget in proportion to the targets.

    The excess of a source that is limited by `max_epochs` is distributed to the remaining sources.
    """
    shares = {name: Share(0.0, target) for name, target in targets.items()}
    unlimited = {name for name, target in targets.items() if target > 0 and sizes[name]}
    remaining = budget
    while unlimited:
        target_sum = sum(targets[name] for name in unlimited)
        full = {name for name in unlimited if remaining * targets[name] / target_sum > max_epochs * sizes[name]}
        if not full:
            for name in unlimited:
                shares[name] = Share(remaining * targets[name] / target_sum / sizes[name], targets[name])
            break
        for name in full:
            shares[name] = Share(max_epochs, targets[name], limited=True)
            remaining -= max_epochs * sizes[name]
        unlimited -= full
    return shares
