"""An override sets a key to exactly the TOML value that the user gives."""

from __future__ import annotations

from typing import Any

import tomlkit
from hypothesis import given
from hypothesis import strategies as st

from groundup.core.config import apply_overrides

KEYS = st.from_regex(r"[A-Za-z_][A-Za-z0-9_-]{0,8}", fullmatch=True)
# TOML files cannot contain lone surrogates.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
VALUES = st.recursive(
    st.booleans() | st.integers(-(2**62), 2**62) | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)


def inline(value: Any) -> Any:
    """Return a value as an inline TOML item."""
    if isinstance(value, dict):
        table = tomlkit.inline_table()
        for key, inner in value.items():
            table[key] = inline(inner)
        return table
    if isinstance(value, list):
        array = tomlkit.array()
        for inner in value:
            array.append(inline(inner))
        return array
    return tomlkit.item(value)


@given(st.lists(KEYS, min_size=1, max_size=3), VALUES)
def test_override_sets_the_value(path: list[str], value: Any) -> None:
    found: Any = apply_overrides({}, [f"{'.'.join(path)}={inline(value).as_string()}"])
    for key in path:
        found = found[key]
    assert found == value
