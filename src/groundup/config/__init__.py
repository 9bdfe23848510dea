"""Strict, typed configs and their TOML: one declaration gives recipe key, flag, help and check."""

from groundup.config.check import load, nearest, unknown_key
from groundup.config.declare import Config, Setting, setting, settings_of
from groundup.config.toml import annotated_toml, apply_overrides, read_toml

__all__ = [
    "Config",
    "Setting",
    "annotated_toml",
    "apply_overrides",
    "load",
    "nearest",
    "read_toml",
    "setting",
    "settings_of",
    "unknown_key",
]
