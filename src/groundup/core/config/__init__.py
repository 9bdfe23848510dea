"""Strict, typed configs and their TOML: one declaration gives recipe key, flag, help and check."""

from groundup.core.config.check import load, nearest, unknown_key
from groundup.core.config.declare import Config, Setting, setting, settings_of
from groundup.core.config.toml import annotated_toml, apply_overrides, read_toml
from groundup.core.config.version import RECIPE_VERSION, VERSION, take_version

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
    "take_version",
    "unknown_key",
]
