"""The options of ``est-client simulate``; nothing of the simulator is imported for them."""

from __future__ import annotations

import argparse

DESCRIPTION = """\
Let a fleet of simulated devices enroll, each with its own key, memory, clock and link, and say
what it took. Client and server are the real ones; sockets and time are not, so that minutes on
the air pass in milliseconds. The server is ours, started for the run, unless --url names another;
real time rules then. See docs/explanation/constrained-enrollment.md."""

EXAMPLES = """\
examples:
    est-client simulate --devices 1000 --profile thread-802.15.4 --report out/
    est-client simulate --devices 200 --loss 0.3 --latency 2
    est-client simulate --profile nb-iot --compare block-size=64,256,1024 \\
        --compare transport=https,coaps --report out/
    est-client simulate --devices 50 --seed 7 --write-list devices.csv
    est-client simulate --devices 50 --seed 7 --url coaps://est.example --ca-cert ca.pem

exit status of this command: 1 means that a device has no certificate, or got it later than
--require-within allows.

"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    _add_fleet(parser.add_argument_group("fleet"))
    _add_network(parser.add_argument_group("network"))
    _add_device(parser.add_argument_group("device"))
    _add_server(parser.add_argument_group("server"))
    _add_output(parser.add_argument_group("run and report"))


def _add_fleet(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--devices", type=int, default=100, metavar="N", help="how many (default: 100)"
    )
    group.add_argument(
        "--seed",
        type=int,
        default=1,
        metavar="N",
        help="for keys, links and arrivals; the same one repeats a run (default: 1)",
    )
    group.add_argument(
        "--arrivals",
        default="at-once",
        metavar="PATTERN",
        help="at-once, poisson or even (default: at-once)",
    )
    group.add_argument(
        "--arrive-within",
        type=float,
        default=60.0,
        metavar="SECONDS",
        help="in which all arrive, for poisson and even (default: 60)",
    )


def _add_network(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--profile",
        default="ethernet",
        metavar="NAME",
        help="ethernet, wifi, thread-802.15.4, nb-iot, lte-m, lorawan-sf7, lorawan-sf12 or "
        "satellite (default: ethernet)",
    )
    group.add_argument(
        "--transport", default="coaps", metavar="NAME", help="coaps or https (default: coaps)"
    )
    group.add_argument(
        "--loss",
        type=float,
        metavar="SHARE",
        help="of datagrams each way, from 0 to 1, beside the profile's loss of frames",
    )
    group.add_argument(
        "--loss-down", type=float, metavar="SHARE", help="to the device, if that differs"
    )
    group.add_argument(
        "--burst",
        type=float,
        metavar="N",
        help="datagrams lost in a row on average (default: independent losses)",
    )
    group.add_argument(
        "--latency", type=float, metavar="SECONDS", help="each way (default: the profile's)"
    )
    group.add_argument(
        "--nat-timeout",
        type=float,
        metavar="SECONDS",
        help="of silence after which a device gets another address (default: the profile's)",
    )
    group.add_argument(
        "--cell",
        type=int,
        default=1,
        metavar="N",
        help="devices that share the air (default: 1, which is nobody)",
    )


def _add_device(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--identity",
        default="bare-key",
        metavar="MODEL",
        help="bare-key, birth-certificate or one-time-secret (default: bare-key)",
    )
    group.add_argument(
        "--mcu",
        default="cortex-m4",
        metavar="NAME",
        help="cortex-m0plus, cortex-m4, cortex-m4-plain, cortex-m33 or none (default: cortex-m4)",
    )
    group.add_argument(
        "--block-size", type=int, metavar="N", help="octets per CoAP block (default: the profile's)"
    )
    group.add_argument(
        "--mtu", type=int, metavar="N", help="octets of a DTLS datagram (default: the profile's)"
    )
    group.add_argument(
        "--ack-timeout",
        type=float,
        metavar="SECONDS",
        help="CoAP's ACK_TIMEOUT at both ends (default: the profile's)",
    )
    group.add_argument(
        "--cipher",
        default="ccm8",
        metavar="NAME",
        help="ccm8, RFC 9148's mandatory suite, or any (default: ccm8)",
    )
    group.add_argument(
        "--last-write",
        default="lost",
        metavar="FATE",
        help="what becomes of a flash write that a power loss interrupts: lost or survives "
        "(default: lost)",
    )
    group.add_argument(
        "--power-losses",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="of devices that lose power once while they enroll (default: 0)",
    )
    group.add_argument(
        "--give-up",
        type=float,
        default=86400.0,
        metavar="SECONDS",
        help="after which a device without a certificate counts as failed (default: a day)",
    )
    group.add_argument(
        "--renewals", type=int, default=0, metavar="N", help="per device, in time (default: 0)"
    )
    group.add_argument(
        "--validity",
        type=float,
        default=90.0,
        metavar="DAYS",
        help="of the certificates (default: 90)",
    )
    group.add_argument(
        "--factory-reset",
        action="store_true",
        help="let each device lose its operational identity at the end, and enroll again",
    )


def _add_server(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--url",
        metavar="URL",
        help="of any EST server, in real time (default: ours, started for the run)",
    )
    group.add_argument("--ca-cert", metavar="FILE", help="what devices trust, with --url")
    group.add_argument(
        "--write-list",
        metavar="FILE",
        help="write the device list of this fleet for the server at --url, and do nothing else",
    )
    group.add_argument(
        "--max-sessions",
        type=int,
        metavar="N",
        help="at a time, of a server started for the run (default: the server's own)",
    )
    group.add_argument(
        "--send-root",
        action="store_true",
        help="let a server started for the run send its root certificate in DTLS handshakes",
    )
    group.add_argument(
        "--server-time",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="that a worker of a server started for the run takes for a request, with its share "
        "of the handshake (default: 0, no simulated time)",
    )
    group.add_argument(
        "--server-workers", type=int, default=1, metavar="N", help="of them (default: 1)"
    )


def _add_output(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--compare",
        action="append",
        default=[],
        metavar="NAME=VALUE,VALUE",
        help="run every combination: ack-timeout, block-size, cell, cipher, devices, identity, "
        "latency, loss, mcu, mtu, profile, seed, send-root, server-time, server-workers, "
        "transport; may be repeated",
    )
    group.add_argument("--json", metavar="FILE", help="where everything goes as JSON")
    group.add_argument("--csv", metavar="FILE", help="where every device goes as CSV")
    group.add_argument(
        "--report", metavar="DIR", help="where a page with plots goes, with JSON and CSV beside it"
    )
    group.add_argument(
        "--require-within",
        type=float,
        metavar="SECONDS",
        help="in which every device has to have its certificate",
    )
    group.add_argument("--quiet", action="store_true", help="show no progress")
