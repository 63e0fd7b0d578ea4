"""The configuration file ``est-server.toml``: read once, into frozen dataclasses.

Nothing else is read: no environment variables (but passphrases that the file names, and what libpq
looks for if the store is on PostgreSQL), no second file, no defaults from the system. Paths in the
file are relative to the file.
"""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

from est_protocol.errors import ConfigurationError
from est_protocol.labels import read_label
from est_server.authorization.names import check_profile
from est_server.config.addresses import clashes
from est_server.config.reader import Place, read_table
from est_server.config.settings import LabelSettings, ServerConfig

__all__ = ["ServerConfig", "label_table", "load_config"]


def load_config(file: Path) -> ServerConfig:
    """Read ``file``.

    :raises ConfigurationError: it cannot be read, is no TOML, or says something that makes no
        sense; the message names file, table and key.
    """
    try:
        with file.open("rb") as stream:
            document = tomllib.load(stream)
    except OSError as error:
        raise ConfigurationError(f"{file}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file}: not valid TOML: {error}") from error
    config = read_table(ServerConfig, document, Place(file))
    config = replace(config, file=file, labels=_read_labels(config, Place(file)))
    _check(config, Place(file))
    return config


def _read_labels(config: ServerConfig, place: Place) -> dict[str, LabelSettings]:
    """The labels as requests name them; in the file they may be percent-encoded as in a URL."""
    labels: dict[str, LabelSettings] = {}
    for written, settings in config.labels.items():
        try:
            label = read_label(written)
        except ConfigurationError as error:
            place.inside(label_table(written)).fail(str(error))
        if label in labels:
            place.inside(label_table(written)).fail(f"the label {label!r} is there twice")
        labels[label] = settings
    return labels


def _check(config: ServerConfig, place: Place) -> None:
    """What no single table can know."""
    if config.https is None and config.coaps is None and config.proxy is None:
        place.fail("neither [https], [coaps] nor [proxy] is there: nothing to serve")
    if config.proxy is not None and config.proxy.certificates and config.https is None:
        place.inside("proxy").at("certificates").fail("there is no [https] to connect to")
    for first, second in clashes(config):
        host = first.host or "all addresses"
        place.inside(second.table).at("port").fail(
            f"{second.port} is taken by [{first.table}], which listens on {host}"
        )
    lease = config.store.bounds.lease.total_seconds()
    if config.service.issuance_timeout >= lease:
        place.inside("service").at("issuance_timeout").fail(
            f"is not less than the lease of [store.bounds], {lease:g} s, after "
            "which an attempt is taken for dead"
        )
    names: dict[str, str] = {}
    for authority in config.authorities:
        other = names.setdefault(config.crl_name(authority), authority)
        if other != authority:
            place.inside(f"authorities.{authority}").at("crl_name").fail(
                f"is what the CRL of [authorities.{other}] is called"
            )
    for label, settings in config.policies.items():
        _check_label(config, label, settings, place.inside(label_table(label)))


def _check_label(
    config: ServerConfig, label: str | None, settings: LabelSettings, place: Place
) -> None:
    if settings.authority not in config.authorities:
        place.at("authority").fail(f"there is no table [authorities.{settings.authority}]")
    try:
        check_profile(config.profile(label))
    except ConfigurationError as error:
        place.inside("profile").fail(str(error))
    if settings.registration_authorities is not None:
        try:
            settings.registration_authorities.policy()
        except ConfigurationError as error:
            place.inside("registration_authorities").fail(str(error))


def label_table(label: str | None) -> str:
    """The table of a label's settings; ``None`` is the default."""
    return "default" if label is None else f"labels.{label}"
