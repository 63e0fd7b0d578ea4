"""Write the pages that repeat what the code says: ``python -m docs.generate``.

The pages under ``docs/reference/``, the table in ``docs/conformance.md`` and the examples in
``README.md``. A test fails while they differ from what is written here.
"""

from __future__ import annotations

import argparse
import ast
import csv
import dataclasses
import inspect
import json
import re
import textwrap
import types
import typing
from collections.abc import Iterator, Mapping
from datetime import timedelta
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

from cryptography import x509

from docs.conformance_page import conformance_page
from docs.interop_page import interop_page
from docs.profiles_page import profiles_page
from docs.scaling_page import load_figures, with_tables
from est_client.options import parser as client_parser
from est_protocol.errors import STATUS, RefusalReason
from est_server.cli import make_parser as server_parser
from est_server.config import ServerConfig
from est_server.config.reader import EXTENDED_KEY_USAGES, MustExist, Range, choices, settings_of
from est_server.stores.postgresql import PostgresqlAddress

ROOT = Path(__file__).parent.parent
_GENERATED = "<!-- Written by docs/generate.py; change the code instead. -->\n"


def pages() -> dict[Path, str]:
    """Every generated page with its content."""
    reference = ROOT / "docs" / "reference"
    readme = ROOT / "README.md"
    scaling = ROOT / "docs" / "explanation" / "scaling.md"
    return {
        reference / "configuration.md": configuration_page(),
        reference / "cli.md": cli_page(),
        reference / "reason-codes.md": reasons_page(),
        reference / "interop.md": interop_page(ROOT, _GENERATED),
        reference / "link-profiles.md": profiles_page(_GENERATED),
        ROOT / "docs" / "conformance.md": conformance_page(ROOT, _GENERATED),
        readme: with_examples(readme.read_text()),
        scaling: with_tables(scaling.read_text(), load_figures(ROOT / "docs")),
    }


# -- configuration ----------------------------------------------------------------------------


def configuration_page() -> str:
    """Every table and key of ``est-server.toml``."""
    lines = [
        "# est-server.toml",
        "",
        _GENERATED,
        "`est-server init` writes one that is complete. Paths are relative to the file. A key that",
        "is not listed here, a value of the wrong type or a file that is missing keeps the server",
        "from starting, with a message that names file, table and key. Nothing else is read: no",
        "environment variables but those that a `key_passphrase_variable` names, and those that",
        "libpq knows if the store is on PostgreSQL.",
        "",
        'Durations are strings such as `"90d"`, `"12h"`, `"5m"`, `"30s"` or `"100ms"`; times whose',
        "description says seconds are numbers. Numbers are greater than zero unless a range is",
        "given: no bound can be switched off.",
    ]
    for table, kind in _tables(ServerConfig, ""):
        lines += ["", *_table_section(table, kind)]
    return "\n".join(lines) + "\n"


def _tables(kind: type, name: str) -> Iterator[tuple[str, type]]:
    if name:
        yield name, kind
    for key, hint in _fields(kind):
        if (row := _row_type(hint)) is not None:
            yield f"[{key}]", row
            continue
        inner, is_mapping = _inner(hint)
        if not dataclasses.is_dataclass(inner):
            continue
        table = f"{name}.{key}" if name else key
        # Labels have the tables of [default]; saying so is better than saying them again.
        if table == "labels":
            continue
        yield from _tables(typing.cast(type, inner), f"{table}.NAME" if is_mapping else table)


def _fields(kind: type) -> list[tuple[str, Any]]:
    hints = typing.get_type_hints(kind, include_extras=True)
    return [(field.name, hints[field.name]) for field in settings_of(kind)]


def _row_type(hint: Any) -> type | None:
    """The type of the tables in an array of tables."""
    if typing.get_origin(hint) is not tuple:
        return None
    row = typing.get_args(hint)[0]
    return row if dataclasses.is_dataclass(row) and isinstance(row, type) else None


def _inner(hint: Any) -> tuple[Any, bool]:
    """The type behind ``X | None`` or ``Mapping[str, X]``, and whether it was the latter."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        [hint] = [a for a in typing.get_args(hint) if a is not types.NoneType]
    origin = typing.get_origin(hint)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return typing.get_args(hint)[1], True
    return hint, False


def _table_section(table: str, kind: type) -> list[str]:
    title = f"## [{table}]"
    if table == "default":
        title += " and [labels.NAME]"
    elif table.startswith("default."):
        title += f" and [labels.NAME.{table.removeprefix('default.')}]"
    lines = [title, "", _summary(kind)]
    rows = []
    docs = field_docs(kind)
    for field in settings_of(kind):
        hint = typing.get_type_hints(kind, include_extras=True)[field.name]
        if dataclasses.is_dataclass(_inner(hint)[0]) or _row_type(hint) is not None:
            continue
        rows.append(
            f"| `{field.name}` | {_type_text(hint)} | {_default_text(field)} "
            f"| {docs.get(field.name, '').replace('|', chr(92) + '|')} |"
        )
    if rows:
        lines += ["", "| key | value | default | |", "|---|---|---|---|", *rows]
    return lines


def _summary(kind: type) -> str:
    documentation = inspect.getdoc(kind) or ""
    return re.split(r"\n\s*:param ", documentation)[0].strip().replace("``", "`")


def field_docs(kind: type) -> dict[str, str]:
    """What a dataclass says of its fields: by ``:param`` or by a text under the field."""
    documentation = inspect.getdoc(kind) or ""
    docs = {}
    for match in re.finditer(r":param (\w+):(.*?)(?=\n:|\n\n|\Z)", documentation, re.DOTALL):
        docs[match[1]] = _one_line(match[2])
    [definition] = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(definition, ast.ClassDef)
    for statement, following in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(statement, ast.AnnAssign) and isinstance(following, ast.Expr):
            assert isinstance(statement.target, ast.Name)
            docs[statement.target.id] = _one_line(ast.literal_eval(following.value))
    return docs


def _one_line(text: str) -> str:
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text)
    return " ".join(text.split()).replace("``", "`").rstrip(".")


def _type_text(hint: Any) -> str:
    constraints: tuple[Any, ...] = ()
    hint, _ = _inner(hint)
    if typing.get_origin(hint) is Annotated:
        hint, *rest = typing.get_args(hint)
        constraints = tuple(rest)
    if typing.get_origin(hint) in (tuple, frozenset):
        return f"list of {_type_text(typing.get_args(hint)[0])}"
    for constraint in constraints:
        if isinstance(constraint, Range):
            return f"{constraint.minimum} to {constraint.maximum}"
        if isinstance(constraint, MustExist):
            return f"existing {constraint.value}"
    if isinstance(hint, type) and issubclass(hint, Enum):
        return ", ".join(f'`"{name}"`' for name in choices(hint))
    names = {
        bool: "true or false",
        int: "whole number",
        float: "number",
        str: "string",
        Path: "path",
        PostgresqlAddress: "PostgreSQL URL",
        timedelta: "duration",
        x509.ObjectIdentifier: "OID or " + ", ".join(f"`{n}`" for n in EXTENDED_KEY_USAGES),
    }
    return names[hint]


def _default_text(field: dataclasses.Field[Any]) -> str:
    if field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    elif field.default is not dataclasses.MISSING:
        value = field.default
    else:
        return "required"
    return "" if value is None else f"`{_toml(value)}`"


def _toml(value: object) -> str:
    if isinstance(value, Enum):
        return _toml(value.value if isinstance(value.value, str) else value.name)
    if isinstance(value, x509.ObjectIdentifier):
        names = {oid: name for name, oid in EXTENDED_KEY_USAGES.items()}
        return _toml(names.get(value, value.dotted_string))
    if isinstance(value, timedelta):
        return _toml(_duration(value))
    if isinstance(value, frozenset):
        value = sorted(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value)


def _duration(value: timedelta) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        if value % timedelta(seconds=length) == timedelta(0):
            return f"{value // timedelta(seconds=length)}{unit}"
    return f"{value // timedelta(milliseconds=1)}ms"


# -- command line -----------------------------------------------------------------------------


def cli_page() -> str:
    """Every command with its options.

    Not what ``--help`` prints: that differs from one version of Python to the next.
    """
    lines = [
        "# Command lines",
        "",
        _GENERATED,
        "Exit status of `est-server`: 0 done, 1 failed, 2 wrong usage or configuration. Errors of",
        "either program are one line on standard error; `--debug` adds the traceback.",
    ]
    for parser in (*_commands(server_parser()), *_commands(client_parser())):
        lines += ["", f"## {parser.prog}", "", parser.description or ""]
        lines += ["", "| | |", "|---|---|", *(_option_row(a) for a in _options(parser))]
        lines += ["", "```text", textwrap.dedent(parser.epilog or "").strip(), "```"]
    return "\n".join(lines) + "\n"


def _options(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Operands first, then options, without ``--help``."""
    actions = [a for a in parser._actions if not isinstance(a, argparse._HelpAction)]
    return sorted(actions, key=lambda action: bool(action.option_strings))


def _option_row(action: argparse.Action) -> str:
    words = list(action.option_strings)
    if action.nargs != 0:
        choice = "|".join(map(str, action.choices)) if action.choices else None
        words.append(str(action.metavar or choice or action.dest.upper()))
    name = " ".join(words).replace("|", r"\|")
    help_text = (action.help or "").replace("%(default)s", str(action.default))
    return f"| `{name}` | {'required; ' if _must_be_given(action) else ''}{help_text} |"


def _must_be_given(action: argparse.Action) -> bool:
    return action.required and bool(action.option_strings)


def _commands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    nested = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    if not nested:
        yield parser
    for action in nested:
        for command in action.choices.values():
            yield from _commands(command)


# -- reason codes -----------------------------------------------------------------------------


def reasons_page() -> str:
    """Every reason to refuse, with its status on either transport."""
    lines = [
        "# Reasons for refusals",
        "",
        _GENERATED,
        "The code is in the audit log (`reason`), and in the ledger;",
        "it never changes its meaning. The client gets the status and a sentence for people.",
        "",
        "| code | HTTP | CoAP | what it says | what to do |",
        "|---|---|---|---|---|",
    ]
    meanings = reason_meanings()
    for reason in RefusalReason:
        status = STATUS[reason]
        meaning, remedy = meanings[reason.value]
        lines.append(
            f"| `{reason.value}` | {status.http} | {_coap(status.coap)} | {meaning} | {remedy} |"
        )
    return "\n".join(lines) + "\n"


def reason_meanings() -> dict[str, tuple[str, str]]:
    """What each reason says and what to do about it, by its code."""
    with (ROOT / "docs" / "reason_meanings.csv").open(newline="") as file:
        return {row["code"]: (row["meaning"], row["remedy"]) for row in csv.DictReader(file)}


def _coap(code: tuple[int, int]) -> str:
    return f"{code[0]}.{code[1]:02d}"


# -- examples ---------------------------------------------------------------------------------

_EXAMPLE = re.compile(r"<!-- (docs/examples/\w+\.py) -->\n```python\n.*?```\n", re.DOTALL)


def with_examples(text: str) -> str:
    """``text`` with every example in it as its file is now."""

    def current(match: re.Match[str]) -> str:
        return f"<!-- {match[1]} -->\n```python\n{(ROOT / match[1]).read_text()}```\n"

    return _EXAMPLE.sub(current, text)


def main() -> None:
    """Write every page."""
    for path, content in pages().items():
        path.write_text(content)


if __name__ == "__main__":
    main()
