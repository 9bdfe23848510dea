"""The settings of a corpus: its sources and what happens to their text."""

from __future__ import annotations

from collections import Counter
from typing import Self

from pydantic import field_validator, model_validator

from groundup.core.config import Config, setting
from groundup.corpus.decontaminate import DecontaminationSettings
from groundup.corpus.dedup import NearDuplicateSettings, RepeatedTextSettings
from groundup.corpus.language import LanguageStep, check_languages
from groundup.corpus.mix import MixSettings
from groundup.corpus.privacy import PrivacySettings
from groundup.corpus.quality import FilterRules, filter_steps
from groundup.corpus.quality.classifier import QualitySettings
from groundup.corpus.sources import Source, SourceConfig
from groundup.corpus.steps import NamedStep


class CorpusSettings(Config):
    """Everything that decides what ends up in a corpus."""

    sources: list[Source] = setting([], help="where the text comes from: tables of the kinds below")
    min_document_bytes: int = setting(64, help="shorter documents are dropped (UTF-8 bytes)", ge=1)
    max_document_bytes: int = setting(16_384, help="longer texts are split at chapters or paragraphs", ge=1024)
    languages: list[str] = setting([], help='keep only these languages, e.g. ["en", "de"] (ISO 639); default: all')
    min_language_score: float = setting(0.65, help="how sure a wanted language must be (FineWeb's bound)", ge=0, le=1)
    filters: list[str] = setting(
        ["gopher_repetition"],
        help="published rules, in order: gopher_repetition and, for the web, gopher_quality, c4, fineweb",
    )
    rules: FilterRules = setting(FilterRules(), help="their thresholds, where not the published ones")
    validation_fraction: float = setting(0.02, help="share of the documents held out, by hash", gt=0, lt=0.5)
    validation_max_bytes: int = setting(10_000_000, help="held-out text is at most about this much", ge=1000)
    min_bytes: int = setting(200_000, help="a corpus smaller than this is refused: nothing learns from it", ge=0)
    shard_bytes: int = setting(64_000_000, help="text in one shard, about", ge=1_000_000)
    quality: QualitySettings = setting(QualitySettings(), help="examples of texts that you want, and do not want")
    decontaminate: DecontaminationSettings = setting(
        DecontaminationSettings(), help="evaluation items that must not be in the corpus"
    )
    privacy: PrivacySettings = setting(PrivacySettings(), help="personal data and secrets, masked")
    near_duplicates: NearDuplicateSettings = setting(NearDuplicateSettings(), help="documents that are nearly the same")
    repeated_text: RepeatedTextSettings = setting(
        RepeatedTextSettings(), help="paragraphs or lines said again and again"
    )
    mix: MixSettings = setting(MixSettings(), help="how much of each source the text to train on has")

    @model_validator(mode="after")
    def _labels_differ(self) -> Self:
        twice = [label for label, count in Counter(source.label for source in self.sources).items() if count > 1]
        if twice:
            raise ValueError(f"two sources are called {twice[0]!r}: give each its own `name`")
        return self

    @field_validator("languages")
    @classmethod
    def _can_be_told(cls, value: list[str]) -> list[str]:
        check_languages(value)
        return value

    @field_validator("filters")
    @classmethod
    def _are_known(cls, value: list[str]) -> list[str]:
        filter_steps(value)
        return value

    def steps(self, source: SourceConfig) -> tuple[NamedStep, ...]:
        """What each document of a source goes through, in order."""
        languages = self.languages if source.languages is None else source.languages
        filters = self.filters if source.filters is None else source.filters
        return (
            ("language", LanguageStep(languages, self.min_language_score)),  # first: filters ask for it
            *filter_steps(filters, self.rules).items(),
        )
