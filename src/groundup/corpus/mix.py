"""The mixture: how often the text of each source is read, so that the shares of the whole are as wanted.

The rule of GPT-3 (Brown et al. 2020, table 2.2): sources are weighted by quality, not by size, so that a small good
one is read several times and a large poor one in part. Temperature is that of multilingual BERT and XLM-R (Conneau et
al. 2020): shares in proportion to size ** (1 / temperature).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from pydantic import model_validator

from groundup.core.config import Config, nearest, setting
from groundup.core.errors import ConfigError


class MixSettings(Config):
    """`[collect.mix]`: shares by `weights`, or by `temperature`, or how often each source is read, by `epochs`."""

    weights: dict[str, float] = setting({}, help="share of the whole for each source, e.g. {web = 60, wiki = 3}")
    epochs: dict[str, float] = setting({}, help="or: how often each source is read, e.g. {web = 0.44, wiki = 3.4}")
    temperature: float | None = setting(
        None, help="or: shares as size to the power of 1/temperature; 1 leaves them, more makes them more even", ge=1
    )
    budget_tokens: int | None = setting(None, help="tokens in all; default: as many as there are", gt=0)
    bytes_per_token: float = setting(4.0, help="what a token is taken to be: its vocabulary is learned later", gt=0)
    max_epochs: float = setting(
        4.0, help="no source is read more often (repeats beyond 4 teach little: Muennighoff et al. 2023)", gt=0
    )

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        given = [name for name in ("weights", "epochs", "temperature") if getattr(self, name)]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} say the same thing twice: give one of them")
        for name in ("weights", "epochs"):
            for source, value in getattr(self, name).items():
                if value < 0:
                    raise ValueError(f"{name} of {source!r} is {value:g}: it must not be negative")
        if self.weights and not sum(self.weights.values()) > 0:
            raise ValueError("the weights are all 0: nothing would be left")
        return self

    @property
    def wanted(self) -> bool:
        """Whether a mixture is asked for at all."""
        return bool(self.weights or self.epochs or self.temperature or self.budget_tokens)

    def require_known(self, sources: list[str]) -> None:
        """Refuse a weight for a source that is not there, and a source without one.

        Raises:
            ConfigError: names it, with the nearest name.
        """
        for key, table in (("weights", self.weights), ("epochs", self.epochs)):
            for name in table:
                if name not in sources:
                    near = nearest(name, sources)
                    raise ConfigError(
                        f"mix.{key}: {name}",
                        rule=f"a mixture names the sources of this corpus: {', '.join(sources)}",
                        fix=f"Did you mean {near}?" if near else "Use a source's name.",
                    )
            if table and (missing := [name for name in sources if name not in table]):
                raise ConfigError(
                    f"mix.{key}: nothing for {', '.join(missing)}",
                    rule="a mixture says for each source how much of it is wanted",
                    fix=f"Add {missing[0]} = 0 to leave it out, or a larger number.",
                )


@dataclass(frozen=True, slots=True)
class Share:
    """One source's part of a mixture.

    Attributes:
        epochs: how often its text is read.
        wanted: the share of the whole that was asked for.
        limited: whether `max_epochs` held it back.
    """

    epochs: float
    wanted: float
    limited: bool = False


def mixture(settings: MixSettings, sizes: Mapping[str, int]) -> dict[str, Share]:
    """How often each source is read.

    What `max_epochs` takes from one source, the others make up for in proportion to their weights, as far as they
    reach; where all are at the limit, the whole is smaller than the budget.

    Args:
        sizes: bytes of text to train on of each source.
    """
    there = sum(sizes.values())
    if settings.epochs:
        asked = {name: settings.epochs[name] * size for name, size in sizes.items()}
        whole = sum(asked.values()) or 1
        factor = settings.budget_tokens * settings.bytes_per_token / whole if settings.budget_tokens else 1.0
        read = {name: settings.epochs[name] * factor for name in sizes}
        most = settings.max_epochs
        return {name: Share(min(read[name], most), asked[name] / whole, read[name] > most) for name in sizes}
    if settings.weights:
        weights = {name: settings.weights[name] if size else 0.0 for name, size in sizes.items()}
    else:
        weights = {name: size ** (1 / (settings.temperature or 1)) for name, size in sizes.items()}
    total = sum(weights.values()) or 1
    wanted = {name: weight / total for name, weight in weights.items()}
    budget = settings.budget_tokens * settings.bytes_per_token if settings.budget_tokens else float(there)
    return _filled(wanted, sizes, budget, settings.max_epochs)


def _filled(wanted: Mapping[str, float], sizes: Mapping[str, int], budget: float, most: float) -> dict[str, Share]:
    """Pour the budget into the sources by their shares; what overflows one goes to the others."""
    shares = {name: Share(0.0, share) for name, share in wanted.items()}
    open_ = {name for name, share in wanted.items() if share > 0 and sizes[name]}
    left = budget
    while open_:
        share = sum(wanted[name] for name in open_)
        full = {name for name in open_ if left * wanted[name] / share > most * sizes[name]}
        if not full:
            for name in open_:
                shares[name] = Share(left * wanted[name] / share / sizes[name], wanted[name])
            break
        for name in full:
            shares[name] = Share(most, wanted[name], limited=True)
            left -= most * sizes[name]
        open_ -= full
    return shares
