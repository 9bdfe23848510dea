"""The settings of a corpus, which define its sources and its processing steps."""

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
from groundup.corpus.quality import FilterSettings, filter_steps
from groundup.corpus.quality.classifier import QualitySettings
from groundup.corpus.sources import Source, SourceConfig
from groundup.corpus.steps import NamedStep


class CorpusSettings(Config):
    """The sources of a corpus and the settings of its processing steps."""

    sources: list[Source] = setting([], help="text sources; each source is a table of one of the kinds below")
    min_document_bytes: int = setting(64, help="minimum document size in bytes (UTF-8)", ge=1)
    max_document_bytes: int = setting(
        16_384, help="maximum document size in bytes (UTF-8); longer texts are split at chapters or paragraphs", ge=1024
    )
    languages: list[str] = setting(
        [], help='ISO 639 codes of the languages to keep, e.g. ["en", "de"]; default: all languages'
    )
    min_language_score: float = setting(
        0.65, help="minimum language identification score; documents with a lower score are dropped", ge=0, le=1
    )
    filters: list[str] = setting(
        ["gopher_repetition"],
        help="quality filters in the order in which they are applied: gopher_repetition and, for web pages, "
        "gopher_quality, c4, fineweb",
    )
    rules: FilterSettings = setting(
        FilterSettings(), help="thresholds of the quality filters; default: the published values"
    )
    validation_fraction: float = setting(0.02, help="fraction of documents in the validation set", gt=0, lt=0.5)
    validation_max_bytes: int = setting(
        10_000_000, help="approximate maximum size of the validation set in bytes", ge=1000
    )
    min_bytes: int = setting(
        200_000, help="minimum size of the training set in bytes; a smaller training set causes an error", ge=0
    )
    shard_bytes: int = setting(64_000_000, help="approximate size of the text in a shard, in bytes", ge=1_000_000)
    quality: QualitySettings = setting(QualitySettings(), help="quality classifier that is trained on your examples")
    decontaminate: DecontaminationSettings = setting(
        DecontaminationSettings(), help="removal of documents that contain evaluation items"
    )
    privacy: PrivacySettings = setting(PrivacySettings(), help="masking of personal data and secrets")
    near_duplicates: NearDuplicateSettings = setting(NearDuplicateSettings(), help="removal of near-duplicates")
    repeated_text: RepeatedTextSettings = setting(
        RepeatedTextSettings(), help="removal of repeated paragraphs, lines or spans"
    )
    mix: MixSettings = setting(MixSettings(), help="proportions of the sources in the training set")

    @model_validator(mode="after")
    def _labels_differ(self) -> Self:
        twice = [label for label, count in Counter(source.label for source in self.sources).items() if count > 1]
        if twice:
            raise ValueError(f"two sources have the name {twice[0]!r}; set a different `name` for each")
        return self

    @field_validator("languages")
    @classmethod
    def _languages_known(cls, value: list[str]) -> list[str]:
        check_languages(value)
        return value

    @field_validator("filters")
    @classmethod
    def _filters_known(cls, value: list[str]) -> list[str]:
        filter_steps(value)
        return value

    def steps(self, source: SourceConfig) -> tuple[NamedStep, ...]:
        """Return the steps to apply to the documents of a source, in order."""
        languages = self.languages if source.languages is None else source.languages
        filters = self.filters if source.filters is None else source.filters
        return (
            # Language identification is the first step, because the filters use the language.
            ("language", LanguageStep(languages, self.min_language_score)),
            *filter_steps(filters, self.rules).items(),
        )
