"""Links in the documents lead somewhere: to a file, to a folder, to a heading, or to a symbol in a file."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")])
LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")
FENCE = re.compile(r"```.*?```", re.DOTALL)
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)

# How a file of each kind begins something that a link may name.
DEFINITIONS = {
    ".py": r"^\s*(?:(?:async )?def|class) {name}\b|^{name}\b\s*[:=]",
    ".pyi": r"^\s*(?:def|class) {name}\b",
    ".rs": r"^\s*(?:pub(?:\([^)]*\))? )?(?:fn|struct|enum|trait|mod|const) {name}\b",
    ".sql": r"^-- name: {name}$|^CREATE TABLE {name}\b",
    ".lua": r"^local function {name}\b",
    ".proto": r"^\s*(?:message|service|rpc|enum) {name}\b",
}


def links(document: Path) -> list[str]:
    """Return the links of a document that stay in the repository."""
    found = LINK.findall(FENCE.sub("", document.read_text()))
    return [link for link in found if "://" not in link and not link.startswith("mailto:")]


def problem_of(document: Path, link: str) -> str | None:
    """Return what is wrong with a link."""
    path, _, symbol = link.partition("#")
    target = (document.parent / path).resolve() if path else document
    if not target.is_relative_to(ROOT):
        return "leaves the repository"
    if not target.exists():
        return "leads nowhere"
    if not symbol:
        return None
    if target.suffix == ".md":
        return None if symbol in map(_anchor, HEADING.findall(target.read_text())) else "names no heading"
    pattern = DEFINITIONS[target.suffix].replace("{name}", re.escape(symbol))
    return None if re.search(pattern, target.read_text(), re.MULTILINE) else "names no symbol of that file"


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(document: Path) -> None:
    problems = {link: problem for link in links(document) if (problem := problem_of(document, link))}

    assert problems == {}


def test_the_walk_has_eleven_stops_with_links() -> None:
    walk = (ROOT / "docs" / "life-of-a-job.md").read_text()
    stops = re.split(r"^\d+\. ", walk, flags=re.MULTILINE)[1:]

    assert len(stops) == 11
    assert all(LINK.search(stop) for stop in stops)


@pytest.mark.parametrize(
    ("link", "problem"),
    [
        ("lifecycle.md", None),
        ("lifecycle.md#cancel", None),
        ("lifecycle.md#nothing", "names no heading"),
        ("missing.md", "leads nowhere"),
        ("../../elsewhere.md", "leaves the repository"),
        ("../python/orqestra/model/lifecycle.py#TRANSITIONS", None),
        ("../python/orqestra/model/lifecycle.py#State", None),
        ("../python/orqestra/model/lifecycle.py#Stat", "names no symbol of that file"),
        ("../python/orqestra/store/sql/jobs.sql#claim_jobs", None),
        ("../python/orqestra/store/sql/jobs.sql#claim", "names no symbol of that file"),
    ],
)
def test_a_broken_link_is_recognised(link: str, problem: str | None) -> None:
    assert problem_of(ROOT / "docs" / "life-of-a-job.md", link) == problem
