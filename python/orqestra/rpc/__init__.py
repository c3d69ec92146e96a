"""The gRPC door: protobuf in and out, errors to statuses, roles to RPCs. No decision is made here.

`server` puts it together; `jobs` and `workflows` serve clients, `worker_stream` serves workers.
"""
