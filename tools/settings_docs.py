"""Write what documents the settings, from the settings themselves.

`python tools/settings_docs.py` rewrites `.env.example` and the table in `docs/configuration.md`.
"""

from collections.abc import Callable
from pathlib import Path
from textwrap import wrap

from orqestra.setting_variable import Variable
from orqestra.settings import variables

ROOT = Path(__file__).resolve().parent.parent
TABLE_BEGIN = "<!-- settings: written by tools/settings_docs.py -->"
TABLE_END = "<!-- end of settings -->"
COMMENT_CHARS = 96


def configuration(text: str) -> str:
    """Return the text of `docs/configuration.md` with the table as it should be."""
    before, _, rest = text.partition(TABLE_BEGIN)
    _, _, after = rest.partition(TABLE_END)
    return f"{before}{TABLE_BEGIN}\n{_table()}{TABLE_END}{after}"


def dotenv_example(_text: str = "") -> str:
    """Return the text of `.env.example`: every setting, commented out, with its default."""
    head = "# Copy to .env and uncomment what should differ. Flags and the environment win over it.\n"
    return head + "".join(_example(variable) for _, variable in variables())


DOCUMENTS: dict[str, Callable[[str], str]] = {
    "docs/configuration.md": configuration,
    ".env.example": dotenv_example,
}


def main() -> None:
    """Rewrite every document whose text has changed."""
    for name, render in DOCUMENTS.items():
        path = ROOT / name
        text = path.read_text() if path.exists() else ""
        if text != render(text):
            path.write_text(render(text))
            print(f"{name} written")


def _table() -> str:
    rows = ["| variable | default | allowed | what it does, and why this default |", "|---|---|---|---|"]
    rows += [_row(variable) for _, variable in variables()]
    return "\n".join(rows) + "\n"


def _row(variable: Variable) -> str:
    default = _default(variable)
    shown = default if variable.shown_default else f"`{default}`"
    unit = f" {variable.unit}" if variable.unit and not variable.shown_default else ""
    allowed = variable.kind.allowed.replace("|", "\\|")
    return f"| `{variable.name}` | {shown}{unit} | {allowed} | {variable.why} |"


def _example(variable: Variable) -> str:
    unit = f" Unit: {variable.unit}." if variable.unit else ""
    comment = wrap(f"{variable.why} Allowed: {variable.kind.allowed}.{unit}", COMMENT_CHARS)
    lines = ["", *(f"# {line}" for line in comment)]
    if variable.shown_default:
        lines.append(f"# Default: {variable.shown_default}")
    value = "" if variable.shown_default else _default(variable)
    return "\n".join([*lines, f"#{variable.name}={value}"]) + "\n"


def _default(variable: Variable) -> str:
    if variable.shown_default:
        return variable.shown_default
    return variable.default if isinstance(variable.default, str) else variable.default({})


if __name__ == "__main__":
    main()
