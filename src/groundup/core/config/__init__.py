"""Strict, typed configs. The declaration of a setting defines its recipe key, flag, help text and validation."""

from groundup.core.config.check import load, nearest, unknown_name
from groundup.core.config.declare import Config, Setting, setting, settings_of
from groundup.core.config.toml import annotated_toml, apply_overrides, read_toml
from groundup.core.config.version import RECIPE_VERSION, VERSION, without_version

__all__ = [
    "RECIPE_VERSION",
    "VERSION",
    "Config",
    "Setting",
    "annotated_toml",
    "apply_overrides",
    "load",
    "nearest",
    "read_toml",
    "setting",
    "settings_of",
    "unknown_name",
    "without_version",
]
