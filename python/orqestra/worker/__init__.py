"""The worker: takes jobs from a server over one stream, runs them, and tells how they ended.

Start with `daemon` (what a worker is made of, from start to drain). Then follow a job through it:

    stream        one session: messages come in, messages go out, beats keep the lease
    jobs          what the worker holds: accept, start, cancel, hand back
    supervised    what runs them: the supervisor that `supervision` keeps, elsewhere than on Linux `portable`
    shell         from the payload to the command; `environment` is what every command sees
    outcome       from the end of a command to what is told of it
    results       what is kept until the server has acknowledged it
    spool         the disk behind it
    outgoing      what waits to be written, merged

`connection` opens a new stream whenever one has ended; `lease` tells how long the worker may believe
that its jobs are its own; `identity` is what survives a restart. `docs/protocol.md` has the rules.
"""

import os

# Read by gRPC when it is imported. Its hooks around fork would cost every child, and none of ours uses it.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
