"""How much of a gRPC stream may be under way and not yet read; both ends of each connection are told."""

from typing import Final

from orqestra.model import limits

# A batch at once, or 80 MB/s of one stream over 50 ms. gRPC would find out how much is best, for which it sends a ping
# whenever it reads data: the beat of an idle worker, and the answer to it, would cost twice as many packets.
FLOW_CONTROL: Final = (
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", limits.BATCH_BYTES),
)
