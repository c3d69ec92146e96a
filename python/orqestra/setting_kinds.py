"""The kinds of value that a setting can have: how its text is read, and what is allowed."""

import ipaddress
import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import urlsplit

from orqestra.model.duration import format_duration, parse_duration
from orqestra.model.errors import InvalidInput

PORT_MAX: Final = 65535
# sockaddr_un holds 108 bytes, the last of them a zero.
SOCKET_PATH_BYTES: Final = 107
LOCALHOST: Final = "localhost"
EVERYWHERE: Final = "0.0.0.0"  # noqa: S104  the name of what `Settings.check_listen` refuses
NEVER: Final = "never"

Number = TypeVar("Number", int, float)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of value: `parse` raises ValueError for any text that is not `allowed`."""

    allowed: str
    parse: Callable[[str], object]


@dataclass(frozen=True, kw_only=True)
class Address:
    """HOST:PORT. No host means every interface to a listener and this machine to who dials."""

    host: str
    port: int

    @property
    def listen_host(self) -> str:
        """The interface to bind."""
        return self.host or EVERYWHERE

    @property
    def listen(self) -> str:
        """What a listener binds, as HOST:PORT."""
        return _join(self.listen_host, self.port)

    @property
    def dial_host(self) -> str:
        """The host to connect to."""
        return LOCALHOST if self.host in {"", EVERYWHERE, "::"} else self.host

    @property
    def dial(self) -> str:
        """What a client connects to, as HOST:PORT."""
        return _join(self.dial_host, self.port)

    @property
    def is_loopback(self) -> bool:
        """Whether a listener on it is reached from this machine only: 127.0.0.0/8, ::1, localhost."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == LOCALHOST

    def __str__(self) -> str:
        return _join(self.host, self.port)


@dataclass(frozen=True, kw_only=True)
class SocketPath:
    """A Unix socket."""

    path: Path

    def __str__(self) -> str:
        return f"unix://{self.path}"


def whole(minimum: int, maximum: int) -> Kind:
    """Return the whole numbers from `minimum` to `maximum`."""

    def parse(text: str) -> int:
        return _between(minimum, int(text), maximum)

    return Kind(allowed=f"a whole number from {minimum} to {maximum}", parse=parse)


def seconds(minimum: float, maximum: float) -> Kind:
    """Return the spans of time from `minimum` to `maximum`, fractions of a second included."""

    def parse(text: str) -> float:
        return _between(minimum, float(text), maximum)

    return Kind(allowed=f"seconds from {minimum:g} to {maximum:g}", parse=parse)


def age(minimum_ms: int, maximum_ms: int) -> Kind:
    """Return the durations from `minimum_ms` to `maximum_ms`, in ms; None is `never`, which can be written as 0 too."""

    def parse(text: str) -> int | None:
        if text.lower() == NEVER:
            return None
        try:
            milliseconds = parse_duration(text, longest_ms=maximum_ms)
        except InvalidInput as error:
            raise ValueError(text) from error
        return _between(minimum_ms, milliseconds, maximum_ms) if milliseconds else None

    span = f"{format_duration(minimum_ms)} to {format_duration(maximum_ms)}"
    return Kind(allowed=f"a duration like 12h or 7d, from {span}, or never (or 0)", parse=parse)


def choice(*words: str) -> Kind:
    """Return the words given, in upper or lower case."""

    def parse(text: str) -> str:
        return words[words.index(text.lower())]

    return Kind(allowed="one of " + ", ".join(words), parse=parse)


def parse_address(text: str) -> Address:
    """Read HOST:PORT, :PORT or [IPV6]:PORT; raise ValueError for anything else."""
    host, separator, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = ipaddress.IPv6Address(host[1:-1]).compressed
    elif not separator or not re.fullmatch(r"[A-Za-z0-9._-]*", host):
        raise ValueError(text)
    if not re.fullmatch(r"[0-9]{1,5}", port):
        raise ValueError(text)
    return Address(host=host.lower(), port=_between(0, int(port), PORT_MAX))


def mask_url(url: str) -> str:
    """Return `url` without its passwords; nothing of it is shown when it does not look like a URL."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return mask(url)
    rest = re.sub(r"^([^:/]*):.*@", rf"\1:{mask(rest)}@", rest)
    return f"{scheme}://" + re.sub(r"(password=)[^&]*", rf"\1{mask(rest)}", rest)


def mask(_secret: str) -> str:
    """Return what stands for a secret."""
    return "***"


def _between(minimum: Number, number: Number, maximum: Number) -> Number:
    if math.isfinite(number) and minimum <= number <= maximum:
        return number
    raise ValueError(number)


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _parse_redis_address(text: str) -> Address | SocketPath:
    if text.startswith("unix://"):
        path = text.removeprefix("unix://")
        if not path.startswith("/") or len(os.fsencode(path)) > SOCKET_PATH_BYTES:
            raise ValueError(text)
        return SocketPath(path=Path(path))
    return parse_address(text)


def _parse_database(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in {"postgres", "postgresql"} or not parts.path.strip("/"):
        raise ValueError(text)
    _ = parts.port  # raises ValueError for a port that is none
    return text


def _parse_namespace(text: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", text):
        return text
    raise ValueError(text)


def _parse_path(text: str) -> Path:
    if "\0" in text:
        raise ValueError(text)
    return Path(text).expanduser()


def _parse_addresses(text: str) -> tuple[Address, ...]:
    return tuple(parse_address(part.strip()) for part in text.split(","))


def _parse_names(text: str) -> tuple[str, ...]:
    names = tuple(stripped for name in text.split(",") if (stripped := name.strip()))
    if all(re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name, re.ASCII) for name in names):
        return names
    raise ValueError(text)


def _parse_accounts(text: str) -> tuple[str, ...]:
    accounts = tuple(stripped for account in text.split(",") if (stripped := account.strip()))
    if all(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]*(:[A-Za-z0-9_][A-Za-z0-9_-]*)?", one) for one in accounts):
        return accounts
    raise ValueError(text)


def ceilings(*names: str) -> Kind:
    """Return whole numbers from 1 by name: `NAME=NUMBER`, with commas between them."""

    def parse(text: str) -> dict[str, int]:
        pairs = (pair.partition("=") for part in text.split(",") if (pair := part.strip()))
        found = {name.strip(): int(number) for name, _, number in pairs}
        if all(name in names and number > 0 for name, number in found.items()):
            return found
        raise ValueError(text)

    return Kind(allowed="NAME=NUMBER with commas between them, of " + ", ".join(names), parse=parse)


def _parse_switch(text: str) -> bool:
    return bool(("0", "1").index(text))


ACCOUNTS: Final = Kind(allowed="user or user:group, with commas between them", parse=_parse_accounts)
ADDRESS: Final = Kind(allowed="HOST:PORT or :PORT, an IPv6 host in brackets", parse=parse_address)
ADDRESSES: Final = Kind(allowed="HOST:PORT, or several with commas between them", parse=_parse_addresses)
DATABASE: Final = Kind(
    allowed="postgresql://USER:PASSWORD@HOST:PORT/DATABASE, or ?host=/FOLDER for a Unix socket",
    parse=_parse_database,
)
FOLDER: Final = Kind(allowed="a path", parse=_parse_path)
NAMES: Final = Kind(allowed="names of variables with commas between them", parse=_parse_names)
NAMESPACE: Final = Kind(allowed="1 to 64 letters, digits, underscores, dots or hyphens", parse=_parse_namespace)
REDIS: Final = Kind(
    allowed=f"HOST:PORT, or unix:///PATH with a path of at most {SOCKET_PATH_BYTES} bytes",
    parse=_parse_redis_address,
)
SWITCH: Final = Kind(allowed="0 or 1", parse=_parse_switch)
TEXT: Final = Kind(allowed="any text", parse=str)
