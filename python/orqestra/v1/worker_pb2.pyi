from orqestra.v1 import jobs_pb2 as _jobs_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class WorkerMessage(_message.Message):
    __slots__ = ("hello", "beat", "assign_ack", "assign_nack", "results", "store_output", "live_output", "held")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    BEAT_FIELD_NUMBER: _ClassVar[int]
    ASSIGN_ACK_FIELD_NUMBER: _ClassVar[int]
    ASSIGN_NACK_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    STORE_OUTPUT_FIELD_NUMBER: _ClassVar[int]
    LIVE_OUTPUT_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    beat: Beat
    assign_ack: AssignAck
    assign_nack: AssignNack
    results: Results
    store_output: StoreOutput
    live_output: LiveOutput
    held: Held
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., beat: _Optional[_Union[Beat, _Mapping]] = ..., assign_ack: _Optional[_Union[AssignAck, _Mapping]] = ..., assign_nack: _Optional[_Union[AssignNack, _Mapping]] = ..., results: _Optional[_Union[Results, _Mapping]] = ..., store_output: _Optional[_Union[StoreOutput, _Mapping]] = ..., live_output: _Optional[_Union[LiveOutput, _Mapping]] = ..., held: _Optional[_Union[Held, _Mapping]] = ...) -> None: ...

class ServerMessage(_message.Message):
    __slots__ = ("welcome", "beat_ack", "assign", "result_acks", "output_ack", "cancel", "follow", "list_held", "goodbye")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    BEAT_ACK_FIELD_NUMBER: _ClassVar[int]
    ASSIGN_FIELD_NUMBER: _ClassVar[int]
    RESULT_ACKS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_ACK_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    LIST_HELD_FIELD_NUMBER: _ClassVar[int]
    GOODBYE_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    beat_ack: BeatAck
    assign: Assign
    result_acks: ResultAcks
    output_ack: OutputAck
    cancel: Cancel
    follow: Follow
    list_held: ListHeld
    goodbye: Goodbye
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., beat_ack: _Optional[_Union[BeatAck, _Mapping]] = ..., assign: _Optional[_Union[Assign, _Mapping]] = ..., result_acks: _Optional[_Union[ResultAcks, _Mapping]] = ..., output_ack: _Optional[_Union[OutputAck, _Mapping]] = ..., cancel: _Optional[_Union[Cancel, _Mapping]] = ..., follow: _Optional[_Union[Follow, _Mapping]] = ..., list_held: _Optional[_Union[ListHeld, _Mapping]] = ..., goodbye: _Optional[_Union[Goodbye, _Mapping]] = ...) -> None: ...

class AttemptRef(_message.Message):
    __slots__ = ("job_id", "fence", "token")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    FENCE_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    job_id: int
    fence: int
    token: int
    def __init__(self, job_id: _Optional[int] = ..., fence: _Optional[int] = ..., token: _Optional[int] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("protocol", "worker_id", "incarnation", "number", "name", "slots", "queues", "labels", "held", "version")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    QUEUES_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    worker_id: str
    incarnation: str
    number: int
    name: str
    slots: int
    queues: _containers.RepeatedScalarFieldContainer[str]
    labels: _containers.ScalarMap[str, str]
    held: _containers.RepeatedCompositeFieldContainer[HeldAttempt]
    version: str
    def __init__(self, protocol: _Optional[int] = ..., worker_id: _Optional[str] = ..., incarnation: _Optional[str] = ..., number: _Optional[int] = ..., name: _Optional[str] = ..., slots: _Optional[int] = ..., queues: _Optional[_Iterable[str]] = ..., labels: _Optional[_Mapping[str, str]] = ..., held: _Optional[_Iterable[_Union[HeldAttempt, _Mapping]]] = ..., version: _Optional[str] = ...) -> None: ...

class HeldAttempt(_message.Message):
    __slots__ = ("attempt", "phase")
    class Phase(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        PHASE_UNSPECIFIED: _ClassVar[HeldAttempt.Phase]
        PHASE_QUEUED: _ClassVar[HeldAttempt.Phase]
        PHASE_RUNNING: _ClassVar[HeldAttempt.Phase]
        PHASE_FINISHED: _ClassVar[HeldAttempt.Phase]
    PHASE_UNSPECIFIED: HeldAttempt.Phase
    PHASE_QUEUED: HeldAttempt.Phase
    PHASE_RUNNING: HeldAttempt.Phase
    PHASE_FINISHED: HeldAttempt.Phase
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    attempt: AttemptRef
    phase: HeldAttempt.Phase
    def __init__(self, attempt: _Optional[_Union[AttemptRef, _Mapping]] = ..., phase: _Optional[_Union[HeldAttempt.Phase, str]] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("session_id", "lease_ms", "revoke", "server", "protocol", "logs_key")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    LEASE_MS_FIELD_NUMBER: _ClassVar[int]
    REVOKE_FIELD_NUMBER: _ClassVar[int]
    SERVER_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    LOGS_KEY_FIELD_NUMBER: _ClassVar[int]
    session_id: int
    lease_ms: int
    revoke: _containers.RepeatedCompositeFieldContainer[AttemptRef]
    server: str
    protocol: int
    logs_key: bytes
    def __init__(self, session_id: _Optional[int] = ..., lease_ms: _Optional[int] = ..., revoke: _Optional[_Iterable[_Union[AttemptRef, _Mapping]]] = ..., server: _Optional[str] = ..., protocol: _Optional[int] = ..., logs_key: _Optional[bytes] = ...) -> None: ...

class Beat(_message.Message):
    __slots__ = ("seq", "slots", "health")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    HEALTH_FIELD_NUMBER: _ClassVar[int]
    seq: int
    slots: int
    health: str
    def __init__(self, seq: _Optional[int] = ..., slots: _Optional[int] = ..., health: _Optional[str] = ...) -> None: ...

class BeatAck(_message.Message):
    __slots__ = ("seq", "server_time_ms")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    SERVER_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    seq: int
    server_time_ms: int
    def __init__(self, seq: _Optional[int] = ..., server_time_ms: _Optional[int] = ...) -> None: ...

class Assign(_message.Message):
    __slots__ = ("number", "jobs")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    JOBS_FIELD_NUMBER: _ClassVar[int]
    number: int
    jobs: _containers.RepeatedCompositeFieldContainer[Assignment]
    def __init__(self, number: _Optional[int] = ..., jobs: _Optional[_Iterable[_Union[Assignment, _Mapping]]] = ...) -> None: ...

class Assignment(_message.Message):
    __slots__ = ("attempt", "type", "payload", "attempt_number", "timeout_ms", "grace_ms", "run_id", "step", "has_previous_output", "previous_output")
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_NUMBER_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    GRACE_MS_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    HAS_PREVIOUS_OUTPUT_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_OUTPUT_FIELD_NUMBER: _ClassVar[int]
    attempt: AttemptRef
    type: str
    payload: bytes
    attempt_number: int
    timeout_ms: int
    grace_ms: int
    run_id: int
    step: str
    has_previous_output: bool
    previous_output: bytes
    def __init__(self, attempt: _Optional[_Union[AttemptRef, _Mapping]] = ..., type: _Optional[str] = ..., payload: _Optional[bytes] = ..., attempt_number: _Optional[int] = ..., timeout_ms: _Optional[int] = ..., grace_ms: _Optional[int] = ..., run_id: _Optional[int] = ..., step: _Optional[str] = ..., has_previous_output: bool = ..., previous_output: _Optional[bytes] = ...) -> None: ...

class AssignAck(_message.Message):
    __slots__ = ("up_to",)
    UP_TO_FIELD_NUMBER: _ClassVar[int]
    up_to: int
    def __init__(self, up_to: _Optional[int] = ...) -> None: ...

class AssignNack(_message.Message):
    __slots__ = ("attempts", "reason")
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    attempts: _containers.RepeatedCompositeFieldContainer[AttemptRef]
    reason: str
    def __init__(self, attempts: _Optional[_Iterable[_Union[AttemptRef, _Mapping]]] = ..., reason: _Optional[str] = ...) -> None: ...

class Results(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[Result]
    def __init__(self, results: _Optional[_Iterable[_Union[Result, _Mapping]]] = ...) -> None: ...

class Result(_message.Message):
    __slots__ = ("attempt", "ok", "reason", "exit_code", "exit_signal", "error", "stdout", "stderr", "stdout_bytes", "stderr_bytes", "truncated", "started_at_us", "wall_us", "user_us", "system_us", "max_rss_kb", "stdout_stored", "stderr_stored", "killed_processes", "left_processes")
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    OK_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    EXIT_CODE_FIELD_NUMBER: _ClassVar[int]
    EXIT_SIGNAL_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    STDOUT_FIELD_NUMBER: _ClassVar[int]
    STDERR_FIELD_NUMBER: _ClassVar[int]
    STDOUT_BYTES_FIELD_NUMBER: _ClassVar[int]
    STDERR_BYTES_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_US_FIELD_NUMBER: _ClassVar[int]
    WALL_US_FIELD_NUMBER: _ClassVar[int]
    USER_US_FIELD_NUMBER: _ClassVar[int]
    SYSTEM_US_FIELD_NUMBER: _ClassVar[int]
    MAX_RSS_KB_FIELD_NUMBER: _ClassVar[int]
    STDOUT_STORED_FIELD_NUMBER: _ClassVar[int]
    STDERR_STORED_FIELD_NUMBER: _ClassVar[int]
    KILLED_PROCESSES_FIELD_NUMBER: _ClassVar[int]
    LEFT_PROCESSES_FIELD_NUMBER: _ClassVar[int]
    attempt: AttemptRef
    ok: bool
    reason: str
    exit_code: int
    exit_signal: int
    error: str
    stdout: bytes
    stderr: bytes
    stdout_bytes: int
    stderr_bytes: int
    truncated: bool
    started_at_us: int
    wall_us: int
    user_us: int
    system_us: int
    max_rss_kb: int
    stdout_stored: bool
    stderr_stored: bool
    killed_processes: int
    left_processes: int
    def __init__(self, attempt: _Optional[_Union[AttemptRef, _Mapping]] = ..., ok: bool = ..., reason: _Optional[str] = ..., exit_code: _Optional[int] = ..., exit_signal: _Optional[int] = ..., error: _Optional[str] = ..., stdout: _Optional[bytes] = ..., stderr: _Optional[bytes] = ..., stdout_bytes: _Optional[int] = ..., stderr_bytes: _Optional[int] = ..., truncated: bool = ..., started_at_us: _Optional[int] = ..., wall_us: _Optional[int] = ..., user_us: _Optional[int] = ..., system_us: _Optional[int] = ..., max_rss_kb: _Optional[int] = ..., stdout_stored: bool = ..., stderr_stored: bool = ..., killed_processes: _Optional[int] = ..., left_processes: _Optional[int] = ...) -> None: ...

class ResultAcks(_message.Message):
    __slots__ = ("acks",)
    class Verdict(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        VERDICT_UNSPECIFIED: _ClassVar[ResultAcks.Verdict]
        VERDICT_ACCEPTED: _ClassVar[ResultAcks.Verdict]
        VERDICT_DUPLICATE: _ClassVar[ResultAcks.Verdict]
        VERDICT_STALE: _ClassVar[ResultAcks.Verdict]
        VERDICT_UNKNOWN: _ClassVar[ResultAcks.Verdict]
    VERDICT_UNSPECIFIED: ResultAcks.Verdict
    VERDICT_ACCEPTED: ResultAcks.Verdict
    VERDICT_DUPLICATE: ResultAcks.Verdict
    VERDICT_STALE: ResultAcks.Verdict
    VERDICT_UNKNOWN: ResultAcks.Verdict
    class Ack(_message.Message):
        __slots__ = ("attempt", "verdict")
        ATTEMPT_FIELD_NUMBER: _ClassVar[int]
        VERDICT_FIELD_NUMBER: _ClassVar[int]
        attempt: AttemptRef
        verdict: ResultAcks.Verdict
        def __init__(self, attempt: _Optional[_Union[AttemptRef, _Mapping]] = ..., verdict: _Optional[_Union[ResultAcks.Verdict, str]] = ...) -> None: ...
    ACKS_FIELD_NUMBER: _ClassVar[int]
    acks: _containers.RepeatedCompositeFieldContainer[ResultAcks.Ack]
    def __init__(self, acks: _Optional[_Iterable[_Union[ResultAcks.Ack, _Mapping]]] = ...) -> None: ...

class StoreOutput(_message.Message):
    __slots__ = ("attempt", "stream", "offset", "data")
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    attempt: AttemptRef
    stream: _jobs_pb2.Stream
    offset: int
    data: bytes
    def __init__(self, attempt: _Optional[_Union[AttemptRef, _Mapping]] = ..., stream: _Optional[_Union[_jobs_pb2.Stream, str]] = ..., offset: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class OutputAck(_message.Message):
    __slots__ = ("attempt", "stream", "offset", "stored")
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    STORED_FIELD_NUMBER: _ClassVar[int]
    attempt: AttemptRef
    stream: _jobs_pb2.Stream
    offset: int
    stored: bool
    def __init__(self, attempt: _Optional[_Union[AttemptRef, _Mapping]] = ..., stream: _Optional[_Union[_jobs_pb2.Stream, str]] = ..., offset: _Optional[int] = ..., stored: bool = ...) -> None: ...

class LiveOutput(_message.Message):
    __slots__ = ("job_id", "fence", "stream", "offset", "data", "total")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    FENCE_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    job_id: int
    fence: int
    stream: _jobs_pb2.Stream
    offset: int
    data: bytes
    total: int
    def __init__(self, job_id: _Optional[int] = ..., fence: _Optional[int] = ..., stream: _Optional[_Union[_jobs_pb2.Stream, str]] = ..., offset: _Optional[int] = ..., data: _Optional[bytes] = ..., total: _Optional[int] = ...) -> None: ...

class Cancel(_message.Message):
    __slots__ = ("attempts",)
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    attempts: _containers.RepeatedCompositeFieldContainer[AttemptRef]
    def __init__(self, attempts: _Optional[_Iterable[_Union[AttemptRef, _Mapping]]] = ...) -> None: ...

class Follow(_message.Message):
    __slots__ = ("attempt", "stop", "stdout_offset", "stderr_offset")
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    STDOUT_OFFSET_FIELD_NUMBER: _ClassVar[int]
    STDERR_OFFSET_FIELD_NUMBER: _ClassVar[int]
    attempt: AttemptRef
    stop: bool
    stdout_offset: int
    stderr_offset: int
    def __init__(self, attempt: _Optional[_Union[AttemptRef, _Mapping]] = ..., stop: bool = ..., stdout_offset: _Optional[int] = ..., stderr_offset: _Optional[int] = ...) -> None: ...

class LogsUp(_message.Message):
    __slots__ = ("hello", "output")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    hello: LogsHello
    output: LiveOutput
    def __init__(self, hello: _Optional[_Union[LogsHello, _Mapping]] = ..., output: _Optional[_Union[LiveOutput, _Mapping]] = ...) -> None: ...

class LogsDown(_message.Message):
    __slots__ = ("follow", "credit")
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    follow: Follow
    credit: Credit
    def __init__(self, follow: _Optional[_Union[Follow, _Mapping]] = ..., credit: _Optional[_Union[Credit, _Mapping]] = ...) -> None: ...

class LogsHello(_message.Message):
    __slots__ = ("session_id", "key")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    session_id: int
    key: bytes
    def __init__(self, session_id: _Optional[int] = ..., key: _Optional[bytes] = ...) -> None: ...

class Credit(_message.Message):
    __slots__ = ("bytes",)
    BYTES_FIELD_NUMBER: _ClassVar[int]
    bytes: int
    def __init__(self, bytes: _Optional[int] = ...) -> None: ...

class ListHeld(_message.Message):
    __slots__ = ("seq",)
    SEQ_FIELD_NUMBER: _ClassVar[int]
    seq: int
    def __init__(self, seq: _Optional[int] = ...) -> None: ...

class Held(_message.Message):
    __slots__ = ("seq", "held")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    seq: int
    held: _containers.RepeatedCompositeFieldContainer[HeldAttempt]
    def __init__(self, seq: _Optional[int] = ..., held: _Optional[_Iterable[_Union[HeldAttempt, _Mapping]]] = ...) -> None: ...

class Goodbye(_message.Message):
    __slots__ = ("reason", "retry_after_ms")
    REASON_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    reason: str
    retry_after_ms: int
    def __init__(self, reason: _Optional[str] = ..., retry_after_ms: _Optional[int] = ...) -> None: ...
