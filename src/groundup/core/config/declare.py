"""How a config is declared, and how a declaration is read back by the command line and the TOML writer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from inspect import get_annotations
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from groundup.core.files import expand_home


def _expanded(value: Any) -> Any:
    if isinstance(value, Path):
        return expand_home(value)
    if isinstance(value, list | tuple):
        return type(value)(_expanded(item) for item in value)
    return value


def _as_declared(value: Any, kind: Any) -> Any:
    """Text as a path and a list as a tuple where the type says so: TOML has neither."""
    kind = unwrap(kind)[0]
    if get_origin(kind) in (Union, UnionType):
        for member in get_args(kind):
            value = _as_declared(value, member)
    elif kind is Path and isinstance(value, str):
        return Path(value) if value else value  # Python would take "" for the current directory
    elif get_origin(kind) in (list, tuple) and isinstance(value, list):
        return get_origin(kind)(_as_declared(item, item_type(kind)) for item in value)
    return value


class Config(BaseModel):
    """A frozen table of a recipe; unknown keys are refused, and "~" in a path is the home directory.

    Attributes:
        renamed: key of an earlier release -> what is written now, named in the error.
    """

    renamed: ClassVar[Mapping[str, str]] = {}

    # Infinity and NaN pass bounds such as gt=0, and fail as an overflow deep inside a stage.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _from_toml(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        kinds = {name: info.annotation for name, info in cls.model_fields.items()}
        return {key: _as_declared(value, kinds.get(key, Any)) for key, value in values.items()}

    @field_validator("*", mode="after")
    @classmethod
    def _fits_64_bits(cls, value: Any) -> Any:
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise PydanticCustomError("value_error", "must be an integer that fits into 64 bits")
        return value

    @field_validator("*", mode="after")
    @classmethod
    def _expand_home(cls, value: Any) -> Any:
        return _expanded(value)


def setting(
    default: Any = ...,
    *,
    help: str,
    flag: bool = False,
    positional: bool = False,
    **constraints: Any,
) -> Any:
    """Declare one key of a config: its default, its one-line explanation, whether the command line has it.

    Args:
        default: the default value; `...` makes the key required.
        help: one line, shown by `--help` and as the comment in `groundup config STAGE`.
        flag: also a command-line option (`--vocab-size` for `vocab_size`).
        positional: also the command's positional argument.
        constraints: pydantic's (`ge`, `gt`, `le`, ...).
    """
    return Field(
        _expanded(default),
        description=help,
        json_schema_extra={"flag": flag, "positional": positional},
        **constraints,
    )


@dataclass(frozen=True, slots=True)
class Setting:
    """One declared key, as `settings_of` reads it back.

    Attributes:
        type: the annotation without `Annotated` and without `None`.
        optional: whether `None` is allowed; TOML, which has no null, then leaves the key out.
        default: the default as JSON-like values (paths are strings); `None` where required.
    """

    name: str
    type: Any
    optional: bool
    required: bool
    default: Any
    help: str
    flag: bool
    positional: bool

    @property
    def option(self) -> str:
        """The option on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def metavar(self) -> str:
        """What stands for a value in help and comments: `INTEGER`, `PATH`, `a|b`."""
        return _metavar(self.type)


def settings_of(config: type[Config]) -> Iterator[Setting]:
    """The declared keys of a config, in the order of declaration, inherited ones last."""
    inherited = config.model_fields.keys() - get_annotations(config).keys()
    for name, info in sorted(config.model_fields.items(), key=lambda field: field[0] in inherited):
        kind, optional = unwrap(info.annotation)
        extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
        yield Setting(
            name=name,
            type=kind,
            optional=optional,
            required=info.is_required(),
            default=None if info.is_required() else _plain(info.get_default(call_default_factory=True)),
            help=info.description or "",
            flag=bool(extra.get("flag")),
            positional=bool(extra.get("positional")),
        )


def unwrap(annotation: Any) -> tuple[Any, bool]:
    """Take `Annotated` and `None` off an annotation; the second value says whether `None` was there."""
    if get_origin(annotation) is Annotated:
        return unwrap(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        members = [member for member in get_args(annotation) if member is not NoneType]
        optional = len(members) < len(get_args(annotation))
        kind = unwrap(members[0])[0] if len(members) == 1 else Union[tuple(members)]  # noqa: UP007  built at run time
        return kind, optional
    return annotation, False


def item_type(kind: Any) -> Any:
    """The type of the items of a list, tuple or table type; anything else has no items (`Any`)."""
    arguments = [argument for argument in get_args(kind) if argument is not Ellipsis]
    if get_origin(kind) in (list, tuple, dict) and arguments:
        return unwrap(arguments[-1])[0]
    return Any


def tables_in(kind: Any) -> list[type[Config]]:
    """The config classes that a value of this type, or one of its items, may be."""
    kind = unwrap(kind)[0]
    if isinstance(kind, type) and issubclass(kind, Config):
        return [kind]
    members = get_args(kind) if get_origin(kind) in (Union, UnionType) else [item_type(kind)]
    return [table for member in members if member is not Any for table in tables_in(member)]


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_none=True)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _metavar(kind: Any) -> str:
    names = {int: "INTEGER", float: "NUMBER", bool: "true|false", str: "TEXT", Path: "PATH", Any: "VALUE"}
    if get_origin(kind) is Literal:
        return "|".join(str(choice) for choice in get_args(kind))
    if get_origin(kind) in (list, tuple):
        return f"[{_metavar(item_type(kind))}, ...]"
    if get_origin(kind) in (Union, UnionType):
        return "|".join(dict.fromkeys(_metavar(unwrap(member)[0]) for member in get_args(kind)))
    return names.get(kind, "TABLE")
