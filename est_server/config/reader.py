"""From a table of TOML to a frozen dataclass, by the dataclass's own fields and types.

A setting exists exactly if a dataclass has a field for it, so a bound that a part of the server
documents is configurable without being listed a second time. Whatever does not fit is a
:class:`~est_protocol.errors.ConfigurationError` that names file, table and key.
"""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, NoReturn, Protocol, Self, TypeVar, runtime_checkable

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from est_protocol.errors import ConfigurationError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Range:
    """The numbers that a setting may have, both ends included."""

    minimum: float
    maximum: float


class MustExist(Enum):
    """What has to be there at a configured path."""

    FILE = "file"
    DIRECTORY = "directory"


InputFile = Annotated[Path, MustExist.FILE]
InputDirectory = Annotated[Path, MustExist.DIRECTORY]
Port = Annotated[int, Range(0, 65535)]


@runtime_checkable
class FromText(Protocol):
    """A class that a string stands for; a dataclass among them may be a table as well."""

    @classmethod
    def from_text(cls, text: str) -> Self:
        """What ``text`` stands for.

        :raises ConfigurationError: nothing that there is; the text may be secret, so the message
            does not repeat it.
        """
        ...


#: Metadata of a field that no file may set.
NOT_A_SETTING = "not a setting"

#: Units of durations such as ``"90d"``.
_UNITS = {
    "ms": "milliseconds",
    "s": "seconds",
    "m": "minutes",
    "h": "hours",
    "d": "days",
    "w": "weeks",
}
#: No moment that is so far ahead is beyond the end of the calendar.
_LONGEST = timedelta(days=36_525)
_DURATION = re.compile(r"([0-9]{1,9})(ms|[smhdw])")

#: Names of extended key usages; any other is written as a dotted OID.
EXTENDED_KEY_USAGES = {
    "client-auth": ExtendedKeyUsageOID.CLIENT_AUTH,
    "server-auth": ExtendedKeyUsageOID.SERVER_AUTH,
    "code-signing": ExtendedKeyUsageOID.CODE_SIGNING,
    "email-protection": ExtendedKeyUsageOID.EMAIL_PROTECTION,
    "ipsec-ike": ExtendedKeyUsageOID.IPSEC_IKE,
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where in which file a value stands.

    :param file: the configuration file.
    :param table: dotted name of the table, empty for the top of the file.
    :param key: the key in that table, empty for the table as a whole.
    """

    file: Path
    table: str = ""
    key: str = ""

    def __str__(self) -> str:
        table = f"[{self.table}]" if self.table else "top level"
        return f"{self.file}: {table}{' ' + self.key if self.key else ''}"

    def at(self, key: str) -> Place:
        """The place of ``key`` in this table."""
        return Place(self.file, self.table, key)

    def inside(self, name: str) -> Place:
        """The table ``name`` inside this one."""
        return Place(self.file, f"{self.table}.{name}" if self.table else name)

    def fail(self, sentence: str) -> NoReturn:
        """Raise the error that names this place."""
        raise ConfigurationError(f"{self}: {sentence}")


def read_table(kind: type[T], table: Mapping[str, object], place: Place) -> T:
    """Fill the dataclass ``kind`` from ``table``.

    :raises ConfigurationError: a key is unknown, missing, of the wrong type or out of range.
    """
    hints = typing.get_type_hints(kind, include_extras=True)
    fields = {field.name: field for field in settings_of(kind)}
    for key in table:
        if key not in fields:
            place.at(key).fail(f"unknown key; known are {', '.join(sorted(fields))}")
    values: dict[str, Any] = {}
    for name, field in fields.items():
        if name in table:
            values[name] = read_value(hints[name], table[name], place.at(name))
        elif _is_required(field):
            place.at(name).fail("is missing")
    try:
        return kind(**values)
    except (ValueError, ConfigurationError) as error:
        place.fail(str(error))


def settings_of(kind: type) -> list[dataclasses.Field[Any]]:
    """The fields of a dataclass that a configuration file may set."""
    return [f for f in dataclasses.fields(kind) if f.init and NOT_A_SETTING not in f.metadata]


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def read_value(hint: Any, value: object, place: Place) -> Any:
    """Turn one TOML value into what the type ``hint`` asks for.

    :raises ConfigurationError: it does not fit.
    """
    constraints: tuple[object, ...] = ()
    if typing.get_origin(hint) is Annotated:
        hint, *rest = typing.get_args(hint)
        constraints = tuple(rest)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        [hint] = [argument for argument in arguments if argument is not types.NoneType]
        return read_value(hint, value, place)
    if origin is not None and issubclass(origin, Mapping):
        return _read_mapping(arguments[1], value, place)
    if origin in (tuple, frozenset):
        if not isinstance(value, list):
            place.fail(f"expected a list, not {value!r}")
        return origin(read_value(arguments[0], item, place) for item in value)
    if isinstance(value, str) and isinstance(hint, type) and issubclass(hint, FromText):
        return _from_text(hint, value, place)
    if dataclasses.is_dataclass(hint):
        return read_table(typing.cast(type, hint), _table(value, place), _inside(place))
    if hint in (int, float):
        return _read_number(hint, value, constraints, place)
    if hint is Path:
        return _read_path(value, constraints, place)
    return _read_scalar(hint, value, place)


def _from_text(kind: type[FromText], text: str, place: Place) -> FromText:
    try:
        return kind.from_text(text)
    except ConfigurationError as error:
        place.fail(str(error))


def _inside(place: Place) -> Place:
    return Place(place.file, place.table).inside(place.key)


def _table(value: object, place: Place) -> Mapping[str, object]:
    if not isinstance(value, dict):
        place.fail(f"expected a table, not {value!r}")
    return value


def _read_mapping(hint: Any, value: object, place: Place) -> Mapping[str, Any]:
    inside = _inside(place)
    return {
        name: read_value(hint, item, inside.at(name)) for name, item in _table(value, place).items()
    }


def _read_number(
    hint: type, value: object, constraints: tuple[object, ...], place: Place
) -> int | float:
    allowed = int if hint is int else (int, float)
    if isinstance(value, bool) or not isinstance(value, allowed):
        place.fail(f"expected {'a whole number' if hint is int else 'a number'}, not {value!r}")
    bounds = [constraint for constraint in constraints if isinstance(constraint, Range)]
    for bound in bounds:
        if not bound.minimum <= value <= bound.maximum:
            place.fail(f"{value} is not between {bound.minimum} and {bound.maximum}")
    # Every bound and time-out has to exist; zero and less would switch it off.
    if not bounds and not value > 0:
        place.fail(f"{value} is not greater than zero")
    return hint(value)  # type: ignore[no-any-return]


def _read_path(value: object, constraints: tuple[object, ...], place: Place) -> Path:
    path = place.file.parent / _text(value, place)
    if MustExist.FILE in constraints and not path.is_file():
        place.fail(f"there is no file {path}")
    if MustExist.DIRECTORY in constraints and not path.is_dir():
        place.fail(f"there is no directory {path}")
    return path


def _read_scalar(hint: Any, value: object, place: Place) -> Any:
    if hint is bool:
        if not isinstance(value, bool):
            place.fail(f"expected true or false, not {value!r}")
        return value
    text = _text(value, place)
    if hint is str:
        return text
    if hint is timedelta:
        return _duration(text, place)
    if hint is x509.ObjectIdentifier:
        return _extended_key_usage(text, place)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return _choice(hint, text, place)
    raise TypeError(f"{place}: no way to read a {hint!r}")


def _text(value: object, place: Place) -> str:
    if not isinstance(value, str):
        place.fail(f"expected a string, not {value!r}")
    return value


def _duration(text: str, place: Place) -> timedelta:
    match = _DURATION.fullmatch(text)
    if match is None:
        place.fail(f"expected a duration such as '90d', '12h', '5m' or '30s', not {text!r}")
    try:
        duration = timedelta(**{_UNITS[match[2]]: int(match[1])})
    except OverflowError:
        duration = timedelta.max
    if duration > _LONGEST:
        place.fail(f"{text} is longer than 100 years")
    if not duration:
        place.fail(f"{text} is not greater than zero")
    return duration


def _extended_key_usage(text: str, place: Place) -> x509.ObjectIdentifier:
    known = EXTENDED_KEY_USAGES.get(text)
    if known is not None:
        return known
    try:
        return x509.ObjectIdentifier(text)
    except ValueError:
        place.fail(f"{text!r} is neither an OID nor one of {', '.join(EXTENDED_KEY_USAGES)}")


def choices(kind: type[Enum]) -> dict[str, Enum]:
    """What may be written for an enumeration: its texts, or its names where it has none."""
    return {m.value if isinstance(m.value, str) else m.name: m for m in kind}


def _choice(kind: type[Enum], text: str, place: Place) -> Enum:
    known = choices(kind)
    if text not in known:
        place.fail(f"{text!r} is none of {', '.join(known)}")
    return known[text]
