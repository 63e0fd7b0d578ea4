"""What commands have in common that order something: who orders it, and why."""

from __future__ import annotations

import argparse
import os
import pwd

from est_server.life_cycle import LONGEST_TEXT
from est_server.revocations import RevocationReason


def add_actor(parser: argparse.ArgumentParser) -> None:
    """Add ``--actor``."""
    parser.add_argument(
        "--actor",
        metavar="NAME",
        type=audit_text,
        default=None,
        help="who orders it, for the audit trail (default: the user who runs the command)",
    )


def actor_of(options: argparse.Namespace) -> str:
    """Who orders it: who was named, or else the user of the operating system."""
    if options.actor is not None:
        return str(options.actor)
    number = os.getuid()
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"uid {number}"


def add_reason(parser: argparse.ArgumentParser) -> None:
    """Add ``--reason``, in words."""
    parser.add_argument(
        "--reason",
        metavar="TEXT",
        type=audit_text,
        required=True,
        help="why, for the audit trail",
    )


def add_revocation_reason(parser: argparse.ArgumentParser) -> None:
    """Add ``--reason``, one of RFC 5280's, and ``--note`` for words."""
    parser.add_argument(
        "--reason",
        metavar="CODE",
        type=revocation_reason,
        required=True,
        help=f"why, in CRLs: {', '.join(REVOCATION_REASONS)}",
    )
    parser.add_argument(
        "--note",
        metavar="TEXT",
        type=audit_text,
        default=None,
        help="why, in words for the audit trail (default: CODE)",
    )


#: What ``--reason`` of a revocation may be. To put certificates on hold, suspend their device.
REVOCATION_REASONS = tuple(
    reason.value for reason in RevocationReason if reason is not RevocationReason.CERTIFICATE_HOLD
)


def revocation_reason(text: str) -> RevocationReason:
    """A reason of RFC 5280, in its spelling (``keyCompromise``) or ours (``key-compromise``)."""
    plain = text.replace("-", "").replace("_", "").lower()
    for name in REVOCATION_REASONS:
        if name.replace("-", "") == plain:
            return RevocationReason(name)
    raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(REVOCATION_REASONS)}")


def audit_text(text: str) -> str:
    """A text that fits into the audit trail."""
    if not 0 < len(text) <= LONGEST_TEXT or not text.isprintable():
        raise argparse.ArgumentTypeError(f"1 to {LONGEST_TEXT} printable characters are needed")
    return text
