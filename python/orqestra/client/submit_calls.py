"""The calls that submit, made with bytes: no object for each job."""

from typing import Final

import grpc.aio

from orqestra.v1 import jobs_pb2

_SERVICE: Final = jobs_pb2.DESCRIPTOR.services_by_name["Jobs"].full_name


class SubmitCalls:
    """The calls as the generated stub would make them, but for their requests, which are encoded already."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self.batch: grpc.aio.UnaryUnaryMultiCallable[bytes, jobs_pb2.SubmitBatchResponse] = channel.unary_unary(
            f"/{_SERVICE}/SubmitBatch", response_deserializer=jobs_pb2.SubmitBatchResponse.FromString
        )
        self.stream: grpc.aio.StreamStreamMultiCallable[bytes, jobs_pb2.SubmitStreamResponse] = channel.stream_stream(
            f"/{_SERVICE}/SubmitStream", response_deserializer=jobs_pb2.SubmitStreamResponse.FromString
        )
