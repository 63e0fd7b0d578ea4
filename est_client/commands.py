"""The commands of ``est-client``: from options and files to :class:`EstClient` and back."""

from __future__ import annotations

import argparse
from pathlib import Path

from cryptography.hazmat.primitives import hashes

from est_client.command_inputs import (
    DEFAULT_KIND,
    alt_names_of,
    announce,
    deliver,
    identity_of,
    key_in,
    location_of,
    make_client,
    optional_identity_of,
    say,
    shared_key_in,
    subject_of,
    text_of,
    trust_of,
    values_of,
)
from est_client.csr_contents import kind_wished
from est_client.device_keys import (
    key_to_pem,
)
from est_client.durable_files import PreparedFile, write_durably
from est_client.store_commands import enroll_in_store
from est_client.wishes_text import lines_of
from est_protocol.csr_wishes import read
from est_protocol.errors import ConfigurationError
from est_protocol.secure_channel.context import LocalCredentials


async def cacerts(options: argparse.Namespace) -> None:
    """``est-client cacerts``.

    :raises EstError: it did not work.
    """
    location = location_of(options)
    trust = trust_of(options)
    identity = optional_identity_of(options, location)
    async with make_client(options, location, identity, trust) as client:
        certificates = await client.cacerts()
    deliver(options.out, certificates)
    for certificate in certificates:
        fingerprint = certificate.fingerprint(hashes.SHA256()).hex(":").upper()
        say(f"{text_of(certificate.subject)} sha256={fingerprint}")


async def csrattrs(options: argparse.Namespace) -> None:
    """``est-client csrattrs``.

    :raises EstError: it did not work.
    """
    location = location_of(options)
    trust = trust_of(options)
    identity = optional_identity_of(options, location)
    async with make_client(options, location, identity, trust) as client:
        message = await client.csr_attributes()
    if message is None or not message.elements:
        say("the server asks for nothing")
        return
    for line in lines_of(read(message)):
        print(line)
    if options.out is not None:
        write_durably(Path(options.out), message.encode(), mode=0o644)


async def conformance(options: argparse.Namespace) -> int:
    """``est-client conformance``.

    :return: the exit status: 1 if a MUST failed, else 0.
    :raises EstError: it could not be run.
    """
    # Of no use to a device, so not imported for one.
    from est_client.conformance.command import check_server

    location, trust = location_of(options), trust_of(options)
    if options.cert is not None and options.key is None:
        raise ConfigurationError("--cert FILE needs --key FILE")
    identity = identity_of(options) if options.key else None
    shared = None if options.decrypt_key is None else shared_key_in(options.decrypt_key)
    return await check_server(location, trust, identity, options, shared_key=shared)


def simulate(options: argparse.Namespace) -> int:
    """``est-client simulate``; runs event loops of its own.

    :return: the exit status: 1 if a device has no certificate, or not in time; else 0.
    :raises ConfigurationError: the options make no sense.
    """
    # Of no use to a device, so not imported for one.
    from est_client.simulation.command import simulate_fleets

    return simulate_fleets(options)


async def enroll(options: argparse.Namespace) -> None:
    """``est-client enroll``.

    :raises EstError: it did not work.
    """
    if options.store is not None:
        return await enroll_in_store(options)
    if options.key is None:
        raise ConfigurationError("say where the key is, with --key FILE or --store DIR")
    location, subject = location_of(options), subject_of(options.subject)
    trust = trust_of(options)
    identity = identity_of(options)
    values, names = values_of(options.value), alt_names_of(options.alt_name)
    async with make_client(
        options,
        location,
        identity,
        trust,
        present_bare_key=bool(options.new_key),
    ) as client:
        wishes = await client.csrattrs() if options.follow_csrattrs else None
        key = identity.key
        if options.new_key:
            key = key_in(options.new_key, options.key_type or kind_wished(wishes) or DEFAULT_KIND)
        certificate = await client.simpleenroll(
            key=key,
            subject=subject,
            subject_alt_names=names,
            change_names=options.change_names,
            follow_csr_attributes=wishes or False,
            values=values,
            wait=options.wait,
        )
    deliver(options.out, [certificate])
    announce("enrolled", certificate)


async def serverkeygen(options: argparse.Namespace) -> None:
    """``est-client serverkeygen``.

    :raises EstError: it did not work.
    """
    location, subject = location_of(options), subject_of(options.subject)
    shared = None if options.decrypt_key is None else shared_key_in(options.decrypt_key)
    trust = trust_of(options)
    identity = identity_of(options)
    # Nobody else has the key: where it goes is made before it is asked for.
    with PreparedFile(Path(options.key_out), mode=0o600) as key_file:
        async with make_client(options, location, identity, trust, present_bare_key=True) as client:
            generated = await client.serverkeygen(
                subject=subject,
                subject_alt_names=alt_names_of(options.alt_name),
                kind=options.generate,
                shared_key=shared,
                encrypted=not options.unencrypted,
                wait=options.wait,
            )
        _keep_generated(key_file, generated, options)
    announce("enrolled with a generated key", generated.chain[0])


def _keep_generated(
    key_file: PreparedFile, generated: LocalCredentials, options: argparse.Namespace
) -> None:
    """First the key: a certificate without it is of no use.

    :raises ConfigurationError: the key is not where it should be; it says where it is.
    """
    try:
        key_file.write(key_to_pem(generated.key))
    except OSError as error:
        left = key_file.written_to
        fate = f"it is in {left}" if left else "it is lost"
        deliver(None, generated.chain[:1])
        raise ConfigurationError(
            f"the generated key cannot be written to {options.key_out} ({error.strerror}); {fate}. "
            "Its certificate is on standard output"
        ) from error
    deliver(options.out, generated.chain[:1])


async def reenroll(options: argparse.Namespace) -> None:
    """``est-client reenroll``.

    :raises EstError: it did not work.
    """
    if options.cert is None:
        raise ConfigurationError("reenroll renews a certificate: --cert FILE is needed")
    location, subject = location_of(options), subject_of(options.subject)
    trust = trust_of(options)
    identity = identity_of(options)
    async with make_client(options, location, identity, trust, keep_secrets=True) as client:
        wishes = await client.csrattrs() if options.follow_csrattrs else None
        key = identity.key
        if options.new_key:
            key = key_in(options.new_key, options.key_type or kind_wished(wishes) or DEFAULT_KIND)
        certificate = await client.simplereenroll(
            key=key,
            subject=subject,
            subject_alt_names=alt_names_of(options.alt_name) or None,
            follow_csr_attributes=wishes or False,
            values=values_of(options.value),
            wait=options.wait,
        )
    deliver(options.out, [certificate])
    announce("renewed", certificate)
