"""Personal data and secrets are found and masked with typed marks. No torch."""

from groundup.corpus.privacy.masker import Masked, Masker, mark_of
from groundup.corpus.privacy.settings import KINDS, PrivacySettings

__all__ = ["KINDS", "Masked", "Masker", "PrivacySettings", "mark_of"]
