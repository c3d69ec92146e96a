"""Of what figures are: the commit that is checked out."""

import subprocess
from pathlib import Path
from typing import Any, Final

SHOWN_CHARS: Final = 12
ROOT: Final = Path(__file__).resolve().parent.parent
# What was measured just before does not change what is measured.
NOT_FIGURES: Final = (".", ":!benchmarks/results", ":!benchmarks/README.md")


def commit() -> dict[str, Any] | None:
    """Return its id, and whether files differ from it, figures aside; None where there is no git, or no repository."""
    try:
        found = [
            subprocess.run(("git", *words), cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
            for words in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no", *NOT_FIGURES))
        ]
    except (OSError, subprocess.CalledProcessError):
        return None
    return {"id": found[0], "dirty": bool(found[1])}


def told(commit: dict[str, Any] | None) -> str:
    """Return it for people: `commit 0123456789ab, with changes`; empty for None."""
    if commit is None:
        return ""
    return f"commit {commit['id'][:SHOWN_CHARS]}{', with changes' if commit['dirty'] else ''}"
