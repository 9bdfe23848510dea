"""Overrides set exactly the given keys, and printed defaults can be read back as the defaults."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from groundup.core.config import (
    Config,
    annotated_toml,
    apply_overrides,
    load,
    read_toml,
    setting,
    settings_of,
    without_version,
)
from groundup.core.errors import ConfigError


class Folder(Config):
    kind: Literal["folder"] = setting(help="files of a folder")
    path: Path = setting(help="where the files are")


class Package(Config):
    kind: Literal["package"] = setting(help="files of a package")
    name: str = setting(help="the package")


class Optimizer(Config):
    lr: float = setting(1e-5, help="peak learning rate")
    betas: tuple[float, float] = setting((0.9, 0.95), help="decay rates")


class Work(Config):
    optimizer: Optimizer = setting(Optimizer(lr=0.02), help="the optimizer")  # this table is declared before other keys
    sources: list[Annotated[Folder | Package, Field(discriminator="kind")]] = setting([], help="the sources")
    out: Path = setting(help="output directory")
    cache: Path = setting(Path("a \\ b"), help="where downloads go")
    depth: int | None = setting(None, help="layers")
    ending: str = setting('"quoted"\n\tand more é', help="put behind each text")
    limits: dict[str, int] = setting({"a b": 1}, help="bytes at most")


def test_printed_defaults_read_back_as_the_defaults() -> None:
    text = annotated_toml(Work, "work")
    values = tomllib.loads(text)["work"]
    assert load(Work, values | {"out": "x"}) == load(Work, {"out": "x"})


def test_printed_defaults_explain_every_key_and_comment_out_what_has_no_value() -> None:
    text = annotated_toml(Work, "work")
    for explained in (
        "# The optimizer",
        "# Peak learning rate",
        "# Output directory. Required.",
        "# depth = INTEGER",
    ):
        assert explained in text
    assert '#     kind = "package"' in text  # the keys of tables in a list are described at the end


def test_required_settings_come_first_and_inherited_ones_last() -> None:
    class Longer(Optimizer):
        warmup: int = setting(3, help="warmup steps")
        steps: int = setting(help="number of steps")

    assert [item.name for item in settings_of(Longer)] == ["steps", "warmup", "lr", "betas"]


def test_tables_of_a_list_are_printed_last_and_once() -> None:
    class Sources(Config):
        data: Path | list[Folder] = setting(help="the data")
        test: Path | list[Folder] | None = setting(None, help="the test data")
        optimizer: Optimizer = setting(Optimizer(), help="the optimizer")

    text = annotated_toml(Sources, "sources")
    assert text.count("where the files are".capitalize()) == 1
    assert text.index("[sources.optimizer]") < text.index("Keys of a TABLE in data or test:")


@pytest.mark.parametrize("written", [{}, {"version": 2}])
def test_the_version_of_a_recipe_is_optional(written: dict[str, Any]) -> None:
    assert without_version(written | {"tokenize": {}}, "r.toml") == {"tokenize": {}}


@pytest.mark.parametrize("version", [0, 1, 3, "2", 2.0, True])
def test_another_version_is_refused(version: Any) -> None:
    with pytest.raises(ConfigError, match=r"r\.toml: version = .*reads recipes of version 2.*upgrade"):
        without_version({"version": version}, "r.toml")


def test_keys_that_all_kinds_of_a_table_share_are_printed_once() -> None:
    """All six kinds of sources have ten keys in common."""

    class Near(Config):
        name: str = setting("", help="its name")
        kind: Literal["near"] = setting(help="here")
        note: str = setting("near", help="a note")

    class Far(Config):
        name: str = setting("", help="its name")
        kind: Literal["far"] = setting(help="elsewhere")
        note: str = setting("far", help="a note")
        options: dict[str, int] = setting({}, help="options")

    class Both(Config):
        sources: list[Annotated[Near | Far, Field(discriminator="kind")]] = setting([], help="the sources")

    lines = [line.removeprefix("#").strip() for line in annotated_toml(Both, "both").splitlines()]
    assert lines[4:] == [
        "Keys of every TABLE in sources:",
        'name = ""   # Its name',
        "Kinds of TABLE in sources, with the keys of each kind:",
        "",
        'kind = "near"   # Here',
        'note = "near"   # A note',
        "",
        'kind = "far"   # Elsewhere',
        'note = "far"   # A note',
        "options = {}   # Options",
    ]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("minutes=2", {"minutes": 2}),
        ("minutes = 2.5", {"minutes": 2.5}),
        ("name=my run", {"name": "my run"}),
        ("name=a=b", {"name": "a=b"}),
        ("name=", {}),  # the key is removed, so the default applies
        ('name=""', {"name": ""}),
        ("deep=true", {"deep": True}),
        ("a.b.c=1", {"a": {"b": {"c": 1}}}),
        (
            'collect.sources=[{kind="folder",path="~/notes"}]',
            {"collect": {"sources": [{"kind": "folder", "path": "~/notes"}]}},
        ),
        ("path=C:\\notes", {"path": "C:\\notes"}),
        ("date=2024-13-45", {"date": "2024-13-45"}),
        ("response={fr}", {"response": "{fr}"}),  # this value is a template and not an inline table
        ("text={subject}: {body}", {"text": "{subject}: {body}"}),
        ("merge={}", {"merge": {}}),
        ("x=1\ny=2", {"x": "1\ny=2"}),  # an override sets one key only
    ],
)
def test_override(override: str, expected: dict[str, Any]) -> None:
    assert apply_overrides({}, [override]) == expected


def test_override_changes_a_copy_of_tables_and_lists() -> None:
    recipe = {"collect": {"sources": [{"path": "a"}, {"path": "b"}]}, "pretrain": {"minutes": 5}}
    changed = apply_overrides(recipe, ["collect.sources.1.path=c", "pretrain.depth=4", "pretrain.minutes=1"])
    assert changed == {
        "collect": {"sources": [{"path": "a"}, {"path": "c"}]},
        "pretrain": {"minutes": 1, "depth": 4},
    }
    assert recipe["collect"]["sources"][1] == {"path": "b"}  # type: ignore[index]


@pytest.mark.parametrize(
    "override",
    ["minutes", "=3", "a..b=1", "sources=[{kind=", "sources={kind=", "sources.7=1", "name.first=x", "sources.x=1"],
)
def test_invalid_override_is_a_config_error(override: str) -> None:
    with pytest.raises(ConfigError):
        apply_overrides({"name": "n", "sources": [1]}, [override])


def test_fix_for_an_override_names_its_key() -> None:
    with pytest.raises(ConfigError) as caught:
        apply_overrides({}, ["min_bytes"])
    assert caught.value.fix == "Write --set min_bytes=VALUE."


def test_recipes_from_windows_editors_are_read(tmp_path: Path) -> None:
    """The Windows editor Notepad writes a byte order mark and CRLF line endings."""
    path = tmp_path / "recipe.toml"
    path.write_bytes(b'\xef\xbb\xbfname = "x"\r\n[collect]\r\nworkers = 2\r\n')
    assert read_toml(path) == {"name": "x", "collect": {"workers": 2}}


@pytest.mark.parametrize("content", [b"name = quickstart", b"\xff\xfe", b"[collect]\n[collect]\n"])
def test_invalid_toml_is_an_error_with_the_file_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "recipe.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"recipe\.toml"):
        read_toml(path)


def test_missing_recipe_and_directory_are_errors(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.toml"):
        with pytest.raises(ConfigError):
            read_toml(path)
