"""The rig: real servers on free ports, each ended by its pid, every wait with a deadline."""

from rig.apps import Gunicorn, RawUpstream, Uvicorn
from rig.client import Address, Connection, Response, request, send_raw, upload
from rig.log import Record, records
from rig.machine import CannotBoot, Machine
from rig.nginx import Nginx
from rig.process import Process, free_port, wait_until
from rig.wardent import Wardent, deep_merge, wardent_binary

__all__ = [
    "Address",
    "CannotBoot",
    "Connection",
    "Gunicorn",
    "Machine",
    "Nginx",
    "Process",
    "RawUpstream",
    "Record",
    "Response",
    "Uvicorn",
    "Wardent",
    "deep_merge",
    "free_port",
    "records",
    "request",
    "send_raw",
    "upload",
    "wait_until",
    "wardent_binary",
]
