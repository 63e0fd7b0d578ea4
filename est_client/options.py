"""The options of ``est-client``, with an example for every command."""

from __future__ import annotations

import argparse

from est_client import simulate_options
from est_client.commands import (
    cacerts,
    conformance,
    csrattrs,
    enroll,
    reenroll,
    serverkeygen,
    simulate,
)
from est_client.option_groups import (
    add_alt_names,
    add_anchors,
    add_following,
    add_identity,
    add_location,
    add_out,
    add_pop_linking,
    add_request,
    add_secrets,
    add_server,
    add_store,
    add_subject,
    add_talking,
    add_trust,
    add_wait,
    seconds,
)
from est_client.store_commands import renew
from est_protocol.keys import KEY_KINDS

_EXIT_STATUS = """\
exit status:
  0    success
  1    refused by the server, which says why, or still pending
  2    usage or local error
  3    server not trusted, unreachable or not making sense
  130  interrupted
"""

_ENROLL_EXAMPLES = """\
examples:
  A device with nothing but a key that the server lists:
    est-client enroll --url https://est.example:8443 --ca-cert ca.pem \\
        --key device.key --out device.pem
  The same, as the server asks for it:
    est-client enroll --url https://est.example:8443 --ca-cert ca.pem --key device.key \\
        --follow-csrattrs --value serialNumber=4711 --alt-name ip:192.0.2.7 --out device.pem
  A device with a birth certificate, for a new operational key, over CoAP:
    est-client enroll --url coaps://est.example --ca-cert ca.pem \\
        --key birth.key --cert birth.pem --new-key device.key --out device.pem
  The same, with all that it has in one directory, for `est-client renew`:
    est-client enroll --url coaps://est.example --ca-cert ca.pem \\
        --key birth.key --cert birth.pem --store /var/lib/est
  A listed key, which is taken into that directory and certified there:
    est-client enroll --url https://est.example:8443 --ca-cert ca.pem \\
        --key device.key --store /var/lib/est
  A device with a one-time secret:
    est-client enroll --url coaps://est.example --ca-cert ca.pem \\
        --key device.key --otp-file secret.txt --out device.pem

"""

_REENROLL_EXAMPLE = """\
example:
    est-client reenroll --url https://est.example:8443 --ca-cert ca.pem \\
        --key device.key --cert device.pem --new-key next.key --out next.pem

"""

_RENEW = """\
Renew the certificate in a key store if it is time to, and do nothing if it is not. To be run every
hour or so, by cron or a systemd timer. It is time after two thirds of the certificate's life, more
or less, so that devices that were made together do not come together. The CA certificates are
fetched first, and when they come of age, so that a roll-over of the CA is followed. Whatever moment
it is interrupted at, the device has a working identity, and the next run goes on."""

_RENEW_EXAMPLES = """\
examples:
    est-client renew --url https://est.example:8443 --store /var/lib/est
    est-client renew --url coaps://est.example --store /var/lib/est --watch

"""

_SERVERKEYGEN_EXAMPLE = """\
example:
    est-client serverkeygen --url https://est.example:8443 --ca-cert ca.pem \\
        --key birth.key --cert birth.pem --key-out device.key --out device.pem

"""

_CACERTS_EXAMPLE = """\
example:
    est-client cacerts --url https://est.example:8443 --ca-fingerprint 3A:5F:... --out ca.pem

"""

_CSRATTRS_EXAMPLE = """\
example:
    est-client csrattrs --url https://est.example:8443 --ca-cert ca.pem

"""


_CONFORMANCE = """\
Check any EST or EST-coaps server from outside against the RFCs, row by row. Without --key: what
anybody may ask. With --key, and --cert if there is one: what a device may, with nothing but
enrollments and renewals of that device, dozens of them where the server grants each. Give it a
test device. A server that has granted the device its one enrollment already gets everything else
checked. Requests that are refused on purpose stand in the server's log and may raise its alarms."""

_CONFORMANCE_EXAMPLES = """\
examples:
    est-client conformance --url https://est.example:8443 --ca-cert ca.pem
    est-client conformance --url coaps://est.example --ca-cert ca.pem \\
        --key test-device.key --json report.json --junit report.xml

exit status of this command: 1 means that a MUST failed, or that its check came to no end.

"""


def parser() -> argparse.ArgumentParser:
    """The command line of ``est-client``; ``command`` is the coroutine function to run."""
    top = argparse.ArgumentParser(
        prog="est-client",
        description="Enroll a device with an EST server (RFC 7030 over HTTPS, RFC 9148 over CoAP).",
        epilog="example:\n    est-client enroll --help\n\n" + _EXIT_STATUS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(metavar="COMMAND", required=True)
    _add_cacerts(commands)
    _add_csrattrs(commands)
    _add_enroll(commands)
    _add_reenroll(commands)
    _add_renew(commands)
    _add_serverkeygen(commands)
    _add_conformance(commands)
    _add_simulate(commands)
    return top


# argparse has no public name for it.
_Commands = argparse._SubParsersAction


def _add_cacerts(commands: _Commands[argparse.ArgumentParser]) -> None:
    parser = _add_command(
        commands, "cacerts", "get the CA certificates of the server", _CACERTS_EXAMPLE
    )
    parser.set_defaults(command=cacerts, may_replace="ca_cert")
    add_identity(parser, key_required=False)
    add_out(parser, "all CA certificates, which may be the file of --ca-cert,")


def _add_csrattrs(commands: _Commands[argparse.ArgumentParser]) -> None:
    parser = _add_command(
        commands, "csrattrs", "show what the server asks for in a request", _CSRATTRS_EXAMPLE
    )
    parser.set_defaults(command=csrattrs)
    add_identity(parser, key_required=False)
    parser.add_argument(
        "--out", metavar="FILE", help="where the message in DER goes (default: nowhere)"
    )


def _add_enroll(commands: _Commands[argparse.ArgumentParser]) -> None:
    parser = _add_command(commands, "enroll", "get a certificate for a key", _ENROLL_EXAMPLES)
    parser.set_defaults(command=enroll)
    add_store(add_identity(parser, key_required=False), required=False)
    add_secrets(parser)
    add_request(parser, "CN= and the UDID of the key, its SHA-256")
    add_following(parser)
    add_alt_names(parser)
    parser.add_argument(
        "--change-names",
        action="store_true",
        help="ask for --subject and --alt-name by ChangeSubjectName (RFC 6402 section 2.8), "
        "beside the names of --cert, which the request then repeats",
    )
    add_out(parser, "the certificate")


def _add_serverkeygen(commands: _Commands[argparse.ArgumentParser]) -> None:
    parser = _add_command(
        commands,
        "serverkeygen",
        "have the server make a key, for devices that cannot make a good one",
        _SERVERKEYGEN_EXAMPLE,
    )
    parser.set_defaults(command=serverkeygen)
    add_identity(parser, key_required=True)
    add_secrets(parser)
    add_subject(parser.add_argument_group("request"), "CN= and the UDID of --key, its SHA-256")
    add_alt_names(parser)
    group = parser.add_argument_group("the generated key")
    group.add_argument(
        "--key-out", required=True, metavar="FILE", help="where it goes in PEM, with mode 0600"
    )
    group.add_argument(
        "--generate",
        choices=KEY_KINDS,
        metavar="KIND",
        help="the kind to ask for, such as rsa-3072 (default: that of --key); the server decides",
    )
    group.add_argument(
        "--decrypt-key",
        metavar="FILE",
        help="a key shared with the server to encrypt it with: identifier and key in hex, such as "
        "'6b31 000102...' (default: the key of --cert, if its key usage allows)",
    )
    group.add_argument(
        "--unencrypted",
        action="store_true",
        help="do not ask for encryption beside that of the channel",
    )
    add_out(parser, "the certificate")


def _add_reenroll(commands: _Commands[argparse.ArgumentParser]) -> None:
    parser = _add_command(
        commands, "reenroll", "renew a certificate, for the same or a new key", _REENROLL_EXAMPLE
    )
    parser.set_defaults(command=reenroll, may_replace="cert")
    add_identity(parser, key_required=True)
    add_secrets(parser)
    add_request(parser, "that of --cert; another is asked for by ChangeSubjectName")
    add_alt_names(parser)
    add_following(parser)
    add_out(parser, "the new certificate, which may be the file of --cert,")


def _add_renew(commands: _Commands[argparse.ArgumentParser]) -> None:
    parser = _add_command(
        commands, "renew", "renew what is in a key store, when due", _RENEW_EXAMPLES
    )
    parser.description = _RENEW
    parser.set_defaults(command=renew)
    group = parser.add_argument_group("renewal")
    add_store(group, required=True)
    when = group.add_mutually_exclusive_group()
    when.add_argument("--force", action="store_true", help="renew now, due or not")
    group.add_argument(
        "--keep-key", action="store_true", help="for the same key; by default each has a new one"
    )
    group.add_argument(
        "--key-type",
        choices=KEY_KINDS,
        help="what to make (default: as the server asks, or as the current one)",
    )
    when.add_argument(
        "--watch", action="store_true", help="do not end, but renew whenever it is due"
    )
    add_pop_linking(group)
    add_wait(group)
    add_secrets(parser)
    add_following(parser)
    parser.add_argument("--out", metavar="FILE", help="write the new certificate there too")


def _add_conformance(commands: _Commands[argparse.ArgumentParser]) -> None:
    parser = _add_command(
        commands,
        "conformance",
        "check any EST server against the RFCs from outside",
        _CONFORMANCE_EXAMPLES,
        talks_as_told=False,
    )
    parser.description = _CONFORMANCE
    parser.set_defaults(command=conformance)
    add_identity(parser, key_required=False)
    group = parser.add_argument_group("run and report")
    group.add_argument(
        "--rows",
        action="append",
        metavar="PREFIX",
        help="only rows whose name begins so, such as POP or SE-03; may be repeated",
    )
    group.add_argument(
        "--time-limit",
        type=seconds,
        default=300.0,
        metavar="SECONDS",
        help="for the whole run; rows that are not reached are errors (default: 300)",
    )
    group.add_argument(
        "--max-connections",
        type=int,
        default=500,
        metavar="N",
        help="connections to the server in all (default: 500)",
    )
    group.add_argument(
        "--decrypt-key",
        metavar="FILE",
        help="a key shared with the server, as for serverkeygen, to have generated keys encrypted",
    )
    group.add_argument("--json", metavar="FILE", help="where the report goes as JSON")
    group.add_argument("--junit", metavar="FILE", help="where the report goes as JUnit XML")


def _add_simulate(commands: _Commands[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "simulate",
        help="let a simulated fleet enroll, and see what it takes",
        description=simulate_options.DESCRIPTION,
        epilog=simulate_options.EXAMPLES + _EXIT_STATUS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=simulate)
    simulate_options.add_options(parser)
    add_talking(parser)


def _add_command(
    commands: _Commands[argparse.ArgumentParser],
    name: str,
    summary: str,
    example: str,
    *,
    talks_as_told: bool = True,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=example + _EXIT_STATUS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if talks_as_told:
        add_server(parser)
        add_trust(parser)
    else:
        add_location(parser, patience="for the handshake, and for each answer (default: 30)")
        add_anchors(parser)
    add_talking(parser)
    return parser
