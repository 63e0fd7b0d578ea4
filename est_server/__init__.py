"""EST server: RFC 7030 over HTTPS and RFC 9148 over CoAPS, authorized by a device list.

What a program that embeds the server needs is here; everything else is in the modules.
"""

from est_protocol.errors import ConfigurationError, EstError, RefusalReason, RequestRefused
from est_protocol.messages import Pending
from est_server.alarms import Alarm, AlarmBell, AlarmKind, AlarmLimits, AlarmSink
from est_server.asgi import est_asgi
from est_server.assembly import Assembly, open_service
from est_server.authorization.combinators import all_of, first_of
from est_server.authorization.device_list import DeviceListAuthorizer
from est_server.authorization.names import grant_for
from est_server.https import EstSite, est_application
from est_server.https import serve as serve_https
from est_server.interfaces import ClientIdentity, EnrollmentRequest, IssuanceGrant, LabelPolicy
from est_server.server import EstServer
from est_server.service import EnrollmentService
from est_server.signals import stop_event

__all__ = [
    "Alarm",
    "AlarmBell",
    "AlarmKind",
    "AlarmLimits",
    "AlarmSink",
    "Assembly",
    "ClientIdentity",
    "ConfigurationError",
    "DeviceListAuthorizer",
    "EnrollmentRequest",
    "EnrollmentService",
    "EstError",
    "EstServer",
    "EstSite",
    "IssuanceGrant",
    "LabelPolicy",
    "Pending",
    "RefusalReason",
    "RequestRefused",
    "all_of",
    "est_application",
    "est_asgi",
    "first_of",
    "grant_for",
    "open_service",
    "serve_https",
    "stop_event",
]
