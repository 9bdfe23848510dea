"""Personal data and secrets are found and masked with typed placeholders. No torch."""

from groundup.corpus.privacy.masker import Masked, Masker, placeholder
from groundup.corpus.privacy.settings import KINDS, PrivacySettings

__all__ = ["KINDS", "Masked", "Masker", "PrivacySettings", "placeholder"]
