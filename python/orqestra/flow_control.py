"""How much of a gRPC stream may be under way and not yet read; both ends of each connection are told."""

from typing import Final

from orqestra.model import limits

# A batch at once; of one stream 80 MB/s where a round trip takes 50 ms. gRPC would find out how much is best, by a ping
# after data was read: a fresh connection that carries little more than beats would have twice as many packets.
FLOW_CONTROL: Final = (
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", limits.BATCH_BYTES),
)
