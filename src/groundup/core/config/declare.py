"""Declaration of configs. The command line and the TOML writer read these declarations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from inspect import get_annotations
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

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
    """Convert a string to a path, or a list to a tuple, if the type requires it. TOML has neither paths nor tuples."""
    kind = unwrap(kind)[0]
    if get_origin(kind) in (Union, UnionType):
        for member in get_args(kind):
            value = _as_declared(value, member)
    elif kind is Path and isinstance(value, str):
        return Path(value) if value else value  # Path("") would mean the current directory
    elif get_origin(kind) in (list, tuple) and isinstance(value, list | tuple):
        return get_origin(kind)(_as_declared(item, item_type(kind)) for item in value)
    return value


class Config(BaseModel):
    """Base class of the tables of a recipe.

    Configs are immutable. Unknown keys are errors. A "~" at the start of a path is expanded.
    """

    # Infinity and NaN can satisfy bounds such as gt=0, but later cause an overflow in the stage.
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
    """Declare a key of a config.

    Args:
        default: Default value. If it is `...`, the key is required.
        help: Help text in one line, for `--help` and for the comment that `groundup config STAGE` prints.
        flag: Whether the command line has an option for the key, such as `--vocab-size` for `vocab_size`.
        positional: Whether the key is a positional argument on the command line.
        **constraints: Constraints of pydantic's `Field`, such as `ge`, `gt` or `le`.

    Returns:
        The pydantic field of the key.
    """
    return Field(
        _expanded(default),
        description=help,
        json_schema_extra={"flag": flag, "positional": positional},
        **constraints,
    )


@dataclass(frozen=True, slots=True)
class Setting:
    """A key that a config declares.

    Attributes:
        name: Name of the key.
        type: Type annotation of the key, without `Annotated` and `None`.
        optional: Whether `None` is allowed. TOML has no null value, so the key is omitted in that case.
        required: Whether the key must be given, because it has no default.
        default: Default as a JSON value, with paths as strings. It is None if the key is required.
        help: Help text in one line.
        flag: Whether the command line has an option for the key.
        positional: Whether the key is a positional argument on the command line.
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
        """Command-line option for the key, such as `--vocab-size`."""
        return "--" + self.name.replace("_", "-")

    @property
    def metavar(self) -> str:
        """Placeholder for the value in help texts and comments: `INTEGER`, `PATH` or `a|b`."""
        return _metavar(self.type)


def settings_of(config: type[Config]) -> Iterator[Setting]:
    """Yield the keys of a config: first the required keys, then the class's own keys, then the inherited keys.

    Args:
        config: Config class to inspect.
    """
    declared_by = {name: depth for depth, base in reversed([*enumerate(config.__mro__)]) for name in _own(base)}
    fields = config.model_fields.items()
    for name, info in sorted(fields, key=lambda field: (not field[1].is_required(), declared_by[field[0]])):
        kind, optional = unwrap(info.annotation)
        extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
        yield Setting(
            name=name,
            type=kind,
            optional=optional,
            required=info.is_required(),
            default=None if info.is_required() else _plain(info.get_default(call_default_factory=True)),
            help=_sentence_case(info.description or ""),
            flag=bool(extra.get("flag")),
            positional=bool(extra.get("positional")),
        )


def _own(base: type) -> Iterator[str]:
    yield from get_annotations(base)


def _sentence_case(text: str) -> str:
    """Capitalize the first word, unless this word is a name, a number or the start of a list."""
    first = text.partition(" ")[0]
    return text[:1].upper() + text[1:] if first.removesuffix(".").isalpha() and first.islower() else text


def unwrap(annotation: Any) -> tuple[Any, bool]:
    """Remove `Annotated` and `None` from a type annotation.

    Args:
        annotation: Type annotation of a field.

    Returns:
        The remaining type, and whether the annotation allowed `None`.
    """
    if get_origin(annotation) is Annotated:
        return unwrap(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        members = [member for member in get_args(annotation) if member is not NoneType]
        optional = len(members) < len(get_args(annotation))
        kind = unwrap(members[0])[0] if len(members) == 1 else Union[tuple(members)]  # noqa: UP007  built at run time
        return kind, optional
    return annotation, False


def item_type(kind: Any) -> Any:
    """Return the type of the items of a list, tuple or dict type. For other types, return `Any`."""
    arguments = [argument for argument in get_args(kind) if argument is not Ellipsis]
    if get_origin(kind) in (list, tuple, dict) and arguments:
        return unwrap(arguments[-1])[0]
    return Any


def tables_in(kind: Any) -> list[type[Config]]:
    """Return the config classes that a value of this type, or an item of such a value, can have."""
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
