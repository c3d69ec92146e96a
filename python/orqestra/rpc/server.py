"""The gRPC server: its options, services, health and reflection."""

from collections.abc import Collection, Mapping
from typing import Any, Final

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from orqestra.flow_control import FLOW_CONTROL
from orqestra.model import limits
from orqestra.model.errors import BadSettings
from orqestra.rpc.jobs import JobsService
from orqestra.rpc.roles import ROLES
from orqestra.rpc.undecodable import TellUndecodable
from orqestra.rpc.worker_stream import WorkerStreams
from orqestra.rpc.workflows import WorkflowsService
from orqestra.v1 import (
    jobs_pb2,
    jobs_pb2_grpc,
    worker_pb2,
    worker_pb2_grpc,
    workflows_pb2,
    workflows_pb2_grpc,
)

# The message limit is for the whole of a batch; a little more is left for what is around the jobs.
MESSAGE_BYTES: Final = limits.MESSAGE_BYTES + limits.KIB
OPTIONS: Final = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    ("grpc.max_send_message_length", MESSAGE_BYTES),
    ("grpc.max_metadata_size", 16 * limits.KIB),
    *FLOW_CONTROL,
    # Below the interval of the clients' pings (10 s), or their jitter counts as an attack.
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # Two servers on one port would share its connections without anyone having asked for it.
    ("grpc.so_reuseport", 0),
)
SUBMITS: Final = ("Submit", "SubmitBatch", "SubmitStream")
STREAMS: Final = ("Work", "Logs")
SERVICES: Final = tuple(
    service
    for file in (jobs_pb2.DESCRIPTOR, workflows_pb2.DESCRIPTOR, worker_pb2.DESCRIPTOR)
    for service in file.services_by_name.values()
)


class GrpcServer:
    """Listens, serves, and says on the health service whether it is well."""

    def __init__(self, jobs: JobsService, workflows: WorkflowsService, streams: WorkerStreams) -> None:
        _check_roles()
        self._jobs = jobs
        self._server = grpc.aio.server(options=OPTIONS, interceptors=[TellUndecodable()])
        self._health = health.aio.HealthServicer()
        jobs_pb2_grpc.add_JobsServicer_to_server(jobs, _AsBytes(self._server, read=SUBMITS))
        workflows_pb2_grpc.add_WorkflowsServicer_to_server(workflows, self._server)
        worker_pb2_grpc.add_WorkerServiceServicer_to_server(
            streams, _AsBytes(self._server, read=STREAMS, written=STREAMS)
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (*(service.full_name for service in SERVICES), health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)

    async def start(self, address: str) -> int:
        """Listen on HOST:PORT and return the port; raises BadSettings if that is not possible."""
        try:
            port: int = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise BadSettings(f"GRPC_ADDR={address!r} cannot be listened on: it is in use or not ours") from error
        await self._server.start()
        return port

    async def set_serving(self, *, serving: bool) -> None:
        """Tell the health service, for the server as a whole and each of its services."""
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", *(service.full_name for service in SERVICES)):
            await self._health.set(name, status)

    async def stop(self, grace_seconds: float) -> None:
        """Take no more calls, let those under way end within the grace, and stop."""
        await self._health.enter_graceful_shutdown()
        self._jobs.end_streams()
        await self._server.stop(grace_seconds)


class _AsBytes:
    """Stands before the server while generated code registers a service: of some methods it passes bytes.

    What is said of jobs by the hundred is read and written by `wire`, without an object for each.
    """

    def __init__(self, server: grpc.aio.Server, *, read: Collection[str], written: Collection[str] = ()) -> None:
        self._server = server
        self._read = read
        self._written = written

    def add_generic_rpc_handlers(self, _handlers: object) -> None:
        """Leave it to the next call, which brings the same handlers."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Register handlers without what they would make of bytes."""
        changed = {name: self._changed(name, handler) for name, handler in handlers.items()}
        # Versions differ in which of the two they ask.
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, changed),))
        self._server.add_registered_method_handlers(service, changed)

    def _changed(self, name: str, handler: Any) -> Any:
        changes = {
            **({"request_deserializer": None} if name in self._read else {}),
            **({"response_serializer": None} if name in self._written else {}),
        }
        return handler._replace(**changes)


def _check_roles() -> None:
    methods = {f"/{service.full_name}/{method}" for service in SERVICES for method in service.methods_by_name}
    if methods != ROLES.keys():
        raise AssertionError(f"RPCs without a role, or roles without an RPC: {sorted(methods ^ ROLES.keys())}")
