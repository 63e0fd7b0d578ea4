"""Options that several commands of ``est-client`` share."""

from __future__ import annotations

import argparse

from est_protocol.keys import KEY_KINDS

# argparse has no public name for it.
_Group = argparse._ArgumentGroup

_PATIENCE = (
    "for the handshake, and for each answer with all its blocks (default: 30; over CoAP 60 for the "
    "handshake and 300 for an answer, so that lost datagrams can be repeated)"
)


def add_talking(parser: argparse.ArgumentParser) -> None:
    """What is said on the way."""
    talk = parser.add_argument_group("talking")
    talk.add_argument("--verbose", action="store_true", help="say what is done, step by step")
    talk.add_argument("--debug", action="store_true", help="log everything, with tracebacks")


def add_location(parser: argparse.ArgumentParser, *, patience: str = _PATIENCE) -> _Group:
    """Where the server is."""
    group = parser.add_argument_group("server")
    group.add_argument(
        "--url",
        required=True,
        help="https://HOST[:PORT][/.well-known/est[/LABEL]] or coaps://HOST[:PORT][/...], "
        "such as https://est.example:8443",
    )
    group.add_argument("--label", help="selects a CA and a profile, as LABEL in the URL does")
    group.add_argument(
        "--timeout",
        type=seconds,
        metavar="SECONDS",
        help=patience,
    )
    return group


def add_server(parser: argparse.ArgumentParser) -> None:
    """Where the server is, and how to talk to it."""
    group = add_location(parser)
    group.add_argument(
        "--attempts",
        type=int,
        choices=range(1, 21),
        default=4,
        metavar="N",
        help="how often to send a request if the answer is lost, 1 to 20 (default: 4)",
    )
    group.add_argument(
        "--longest-retry-after",
        type=seconds,
        default=86400.0,
        metavar="SECONDS",
        help='for how long a server is heeded at most that says "not yet"; it is asked again '
        "after this time, whatever it says (default: 86400, a day)",
    )
    group.add_argument(
        "--tls-max",
        choices=("1.2", "1.3"),
        default="1.3",
        help="newest TLS version offered over HTTPS (default: 1.3)",
    )
    group.add_argument(
        "--allow-redirect",
        action="append",
        default=[],
        metavar="HOST[:PORT]",
        help="follow redirects to this other server too; it is verified like the first, and told "
        "no password and no one-time secret; may be repeated",
    )
    group.add_argument(
        "--block-size",
        type=int,
        choices=(16, 32, 64, 128, 256, 512, 1024),
        default=1024,
        help="octets per CoAP block (default: 1024)",
    )
    group.add_argument(
        "--ack-timeout",
        type=seconds,
        default=2.0,
        metavar="SECONDS",
        help="before a CoAP message is sent again for the first time; longer on slow links and "
        "for servers that are slow to acknowledge, which should use the same (default: 2)",
    )
    group.add_argument(
        "--discover",
        action="store_true",
        help="ask the CoAP server at /.well-known/core where its EST resources are; without it "
        "they are at the path of the URL",
    )


def add_anchors(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Whom to trust as the server."""
    group = parser.add_argument_group("trust in the server, one of")
    group.add_argument("--ca-cert", metavar="FILE", help="CA certificates in PEM, such as ca.pem")
    group.add_argument(
        "--ca-fingerprint",
        metavar="SHA256",
        help="64 hex digits over the DER of the CA certificate, colons allowed, such as "
        "`openssl x509 -in ca.pem -noout -fingerprint -sha256` prints",
    )
    group.add_argument(
        "--system-trust",
        action="store_true",
        help="whatever CA this machine trusts; the server's name is then all that is checked",
    )
    return group


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Whom to trust as the server, then and later."""
    add_anchors(parser).add_argument(
        "--keep-trust",
        action="store_true",
        help="do not replace the trust by what the server answers to /cacerts, for servers whose "
        "own certificate is of another CA than the one that issues",
    )


def add_identity(parser: argparse.ArgumentParser, *, key_required: bool) -> _Group:
    """The key and certificate of the device."""
    group = parser.add_argument_group("identity of the device")
    group.add_argument(
        "--key",
        required=key_required,
        metavar="FILE",
        help="private key in PEM; made, with mode 0600, if there is no such file",
    )
    group.add_argument(
        "--cert",
        metavar="FILE",
        help="certificate of --key in PEM, its chain after it; without it the key authenticates "
        "alone",
    )
    group.add_argument(
        "--key-type",
        choices=KEY_KINDS,
        help="what to make where a key is made (default: ec-p256, or what the server asks for)",
    )
    return group


def add_store(group: _Group, *, required: bool) -> None:
    """Where a device keeps what it has."""
    group.add_argument(
        "--store",
        required=required,
        metavar="DIR",
        help="key store: key, certificate, trust anchors and pending requests, each replaced "
        "atomically; made, with mode 0700, if it is not there",
    )


def add_secrets(parser: argparse.ArgumentParser) -> None:
    """Passwords and one-time secrets."""
    group = parser.add_argument_group("secrets, if the server asks for one")
    group.add_argument(
        "--user",
        metavar="NAME",
        help="user name for HTTP authentication; may be empty, as in --user ''",
    )
    group.add_argument(
        "--password-file", metavar="FILE", help="the password of --user, in one line of UTF-8"
    )
    group.add_argument(
        "--allow-md5",
        action="store_true",
        help="answer HTTP Digest with MD5 too, for servers that know nothing better",
    )
    group.add_argument(
        "--otp-file",
        metavar="FILE",
        help="a one-time secret to put into the request as otpChallenge (RFC 7894), in one line; "
        "for est-server it is NAME:SECRET, as `est-server secrets add` prints",
    )


def add_request(parser: argparse.ArgumentParser, default_subject: str) -> None:
    """The key to certify, and the name to ask for."""
    group = parser.add_argument_group("request")
    group.add_argument(
        "--new-key",
        metavar="FILE",
        help="certify this key instead of --key; made, with mode 0600, if there is no such file",
    )
    add_subject(group, default_subject)


def add_subject(group: _Group, default_subject: str) -> None:
    """The name to ask for, how the request is linked, and for how long to wait."""
    group.add_argument(
        "--subject",
        metavar="RFC4514",
        help=f"name to ask for, such as 'CN=pump 7,O=Example' (default: {default_subject})",
    )
    add_pop_linking(group)
    add_wait(group)


def add_alt_names(parser: argparse.ArgumentParser) -> None:
    """Further names to ask for."""
    parser.add_argument(
        "--alt-name",
        action="append",
        default=[],
        metavar="KIND:NAME",
        help="subjectAltName to ask for: dns:, ip:, uri: or email: and the name; may be repeated",
    )


def add_pop_linking(group: _Group) -> None:
    """Whether the request is bound to its channel."""
    group.add_argument(
        "--no-pop-linking",
        action="store_true",
        help="do not bind the request to its channel (RFC 7030 section 3.5)",
    )


def add_wait(group: _Group) -> None:
    """For how long to wait."""
    group.add_argument(
        "--wait",
        type=seconds,
        default=0.0,
        metavar="SECONDS",
        help='how long to wait in all while the server says "not yet" (default: 0)',
    )


def add_following(parser: argparse.ArgumentParser) -> None:
    """Whether the request is made as the server asks."""
    group = parser.add_argument_group("what the server asks for")
    group.add_argument(
        "--follow-csrattrs",
        action="store_true",
        help="ask at /csrattrs what the request should have in it, and make it so",
    )
    group.add_argument(
        "--value",
        action="append",
        default=[],
        metavar="NAME=TEXT",
        help="what to fill in where the server asks for it, such as serialNumber=4711; may be "
        "repeated",
    )


def add_out(parser: argparse.ArgumentParser, what: str) -> None:
    """Where the result goes."""
    parser.add_argument(
        "--out", metavar="FILE", help=f"where {what} in PEM goes (default: standard output)"
    )


def seconds(text: str) -> float:
    """A number of seconds, of an option."""
    seconds = float(text)
    if not 0 <= seconds < float("inf"):
        raise argparse.ArgumentTypeError("must be a number of seconds")
    return seconds
