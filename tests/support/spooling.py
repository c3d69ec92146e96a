"""The files of a spool, to do them harm: as crates/dispatch/src/spool/frame.rs describes them."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final

# Salt, checksum, kind, key, length; the checksum covers all but itself, and the place of the frame.
HEADER: Final = struct.Struct("<IIBQI")
RECORD: Final = 1
# CRC-32C, bits reversed.
POLYNOMIAL: Final = 0x82F63B78


def segments(directory: Path) -> list[Path]:
    """Return the segments of the spool of a worker's directory, oldest first."""
    return sorted((directory / "spool").glob("*.spool"))


def rewrite(directory: Path, key: int, change: Callable[[bytes], bytes]) -> None:
    """Let another record of the same length stand where that of `key` does, with a checksum that is right."""
    for segment in segments(directory):
        content = bytearray(segment.read_bytes())
        at = 0
        while at + HEADER.size <= len(content):
            salt, _, kind, found, length = HEADER.unpack_from(content, at)
            start, end = at + HEADER.size, at + HEADER.size + length
            if (kind, found) == (RECORD, key):
                content[start:end] = change(bytes(content[start:end]))
                covered = struct.pack("<IQ", salt, at) + content[at + 8 : end]
                struct.pack_into("<I", content, at + 4, _checksum(covered))
                segment.write_bytes(content)
                return
            at = end if kind else len(content)
    raise AssertionError(f"no record {key}")


def cut_end(segment: Path, count: int) -> None:
    """Take so many bytes from the end of what was written."""
    content = segment.read_bytes().rstrip(b"\0")
    segment.write_bytes(content[:-count])


def _checksum(content: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (POLYNOMIAL if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF
