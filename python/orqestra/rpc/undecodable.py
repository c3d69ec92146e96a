"""Requests that are no protobuf: told as bad input, with the field where it can be found.

gRPC would answer UNKNOWN for them, before any code of ours is reached.
"""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, NoReturn, TypeAlias, cast

import grpc
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from orqestra.model.errors import InvalidInput

BYTES_ON_WIRE: Final = 2

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"
Continue: TypeAlias = Callable[[grpc.HandlerCallDetails], Awaitable[Handler]]


class Undecodable:
    """Stands in for a request that could not be read: whoever looks into it gets the error."""

    def __init__(self, error: InvalidInput) -> None:
        self._error = error

    def __getattr__(self, name: str) -> NoReturn:
        raise self._error


class TellUndecodable(grpc.aio.ServerInterceptor):
    """Lets the services themselves refuse what cannot be read. Their methods are given an `Undecodable`."""

    async def intercept_service(self, continuation: Continue, details: grpc.HandlerCallDetails) -> Handler:
        """Return the handler of a call, with a deserializer that raises nothing."""
        handler = await continuation(details)
        if handler is None or handler.request_deserializer is None:
            return handler
        parse: Callable[[bytes], Message] = handler.request_deserializer

        def deserialize(raw: bytes) -> Message | Undecodable:
            try:
                return parse(raw)
            except DecodeError:
                kind = getattr(parse, "__self__", None)
                return Undecodable(undecodable(raw, kind.DESCRIPTOR if kind is not None else None))

        # The handlers of the generated code are named tuples, which the type does not say.
        changed: Handler = cast(Any, handler)._replace(request_deserializer=deserialize)
        return changed


def undecodable(raw: bytes, descriptor: Any) -> InvalidInput:
    """Return the error for bytes that are no message of this kind, or of no known kind (None)."""
    field = _bad_text(raw, descriptor) if descriptor is not None else None
    if field is not None:
        return InvalidInput(field, "is not UTF-8, which text must be")
    return InvalidInput("message", "cannot be read: its bytes are not what this call takes")


def _bad_text(raw: bytes, descriptor: Descriptor) -> str | None:
    """Return the name of the first text field whose bytes are not UTF-8, as `job.labels`."""
    try:
        fields = list(cast(Iterable[Any], UnknownFieldSet(Empty.FromString(raw))))
    except DecodeError:
        return None
    for each in fields:
        known = descriptor.fields_by_number.get(each.field_number)
        if known is None or each.wire_type != BYTES_ON_WIRE:
            continue
        if known.type == FieldDescriptor.TYPE_STRING and not _is_utf8(each.data):
            return known.name
        if known.message_type is not None:
            inside = _bad_text(each.data, known.message_type)
            if inside is not None:
                return known.name if known.message_type.GetOptions().map_entry else f"{known.name}.{inside}"
    return None


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
