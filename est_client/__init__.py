"""EST client for devices: enroll, renew and keep the identity that results."""

from est_client.bootstrap import CaFingerprint
from est_client.client import EstClient
from est_client.connectors import ConnectorOptions, connector_for
from est_client.interfaces import KeyStore
from est_client.key_store import FileKeyStore
from est_client.lifecycle import enroll_device, renew_device
from est_client.redirects import RedirectPolicy
from est_client.renewal import RenewalPolicy, Upkeep, keep_current
from est_client.retry import RetryPolicy
from est_client.secrets import HttpLogin
from est_client.trust import TrustDatabase
from est_protocol.keys import generate_key
from est_protocol.secure_channel.context import LocalCredentials

__all__ = [
    "CaFingerprint",
    "ConnectorOptions",
    "EstClient",
    "FileKeyStore",
    "HttpLogin",
    "KeyStore",
    "LocalCredentials",
    "RedirectPolicy",
    "RenewalPolicy",
    "RetryPolicy",
    "TrustDatabase",
    "Upkeep",
    "connector_for",
    "enroll_device",
    "generate_key",
    "keep_current",
    "renew_device",
]
