"""Give docker-compose the passwords it asks for, random ones, in the `.env` beside it.

Those that are there stay as they are. The file is readable by its owner only.
"""

import secrets
import sys
from pathlib import Path

from dotenv import dotenv_values

ROOT = Path(__file__).resolve().parent.parent
# Not the names that `orqestra.settings` reads: the same `.env` also serves servers outside of Docker.
NAMES = ("DOCKER_POSTGRES_PASSWORD", "DOCKER_REDIS_PASSWORD")
SECRET_BYTES = 24


def complete(path: Path) -> tuple[str, ...]:
    """Add to the file at `path` the passwords it lacks, and return their names."""
    present = dotenv_values(path, interpolate=False)
    missing = tuple(name for name in NAMES if not present.get(name))
    if missing:
        path.touch(mode=0o600)
        path.chmod(0o600)
        text = path.read_text()
        start = text if not text or text.endswith("\n") else text + "\n"
        # Hexadecimal, so that it needs no quotes in a URL, in a shell or in Redis' configuration.
        path.write_text(start + "".join(f"{name}={secrets.token_hex(SECRET_BYTES)}\n" for name in missing))
    return missing


if __name__ == "__main__":
    for name in complete(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / ".env"):
        print(f"{name} written to .env")
