"""A YAML file as nodes that know their line, read so that no file can do harm.

Nothing is constructed: nodes hold the text as written, so there is no tag to run code and no `yes` that
becomes true. Depth, aliases and the size after expanding them are checked on the parser's events, before
a tree is built. Every node's mark carries the name of the file, which is all that `refusal` needs.
"""

import difflib
import io
import re
from collections.abc import Collection, Iterator
from typing import Final

import yaml

from orqestra.model import limits
from orqestra.model.errors import InvalidDefinition

EXPANDED_CHARS: Final = limits.PAYLOAD_BYTES
_SHOWN_CHARS: Final = 60
_PROBLEM_CHARS: Final = 300
# What YAML allows in a file; everything else has to be written as an escape in double quotes.
_FORBIDDEN: Final = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_TAG: Final = "tag:yaml.org,2002:"
_KINDS: Final = {
    "null": "nothing",
    "int": "a number",
    "float": "a number",
    "bool": "true or false",
    "timestamp": "a date",
    "seq": "a list",
    "map": "a mapping",
}
# What the parser says, in context or problem, and what it means to someone who wants to mend the file.
_HINTS: Final = {
    "mapping values are not allowed": "wrong indentation, or a value with ': ' in it that is not in quotes",
    "found duplicate anchor": "each anchor (&name) may be set once",
    "tab character": "a tab; YAML is indented with spaces only",
}


def compose_document(source: str, data: bytes) -> yaml.Node:
    """Return the root of the one YAML document in `data`; `source` names it in errors.

    Raises:
        InvalidDefinition: with the line and what is wrong, for any bytes that are not such a document.
    """
    content = _decode(source, data)
    gauge = _Gauge()
    try:
        for event in yaml.parse(_NamedText(source, content), Loader=yaml.CSafeLoader):
            gauge.add(event)
        root: yaml.Node | None = yaml.compose(_NamedText(source, content), Loader=yaml.CSafeLoader)
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(source, content, error) from error
    except yaml.YAMLError as error:
        raise InvalidDefinition(source, 0, f"is not YAML: {error}") from error
    if root is None:
        raise InvalidDefinition(source, 0, "is empty; a mapping with name and steps is needed")
    return root


def refusal(node: yaml.Node | yaml.Event, problem: str) -> InvalidDefinition:
    """Return the error that says what is wrong with `node`, with its file and line."""
    mark = node.start_mark
    assert mark is not None, "only nodes made by hand have no mark"
    return InvalidDefinition(mark.name, mark.line + 1, _one_line(problem))


def kind(node: yaml.Node) -> str:
    """Return what a node is, in words: `a list`, `a number`, `text`."""
    return _KINDS.get(node.tag.removeprefix(_TAG), "text")


def shown(text: str) -> str:
    """Return `text` quoted for a message, cut if it is long."""
    return repr(text) if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]!r}..."


def fields(node: yaml.Node, what: str, known: Collection[str]) -> dict[str, yaml.Node]:
    """Return the values of a mapping whose keys are all among `known`, each at most once."""
    values: dict[str, yaml.Node] = {}
    for key, key_node, value in _entries(node, what):
        if key not in known:
            raise refusal(key_node, f"unknown key {shown(key)} in {what}; {_suggestion(key, known)}")
        values[key] = value
    return values


def text_fields(node: yaml.Node, what: str) -> dict[str, str]:
    """Return a mapping with free keys and values that are text, as written."""
    return {key: written(value, f"{what} {key}") for key, _, value in _entries(node, what)}


def elements(node: yaml.Node, what: str) -> list[yaml.Node]:
    """Return the elements of a list."""
    if not isinstance(node, yaml.SequenceNode):
        raise refusal(node, f"{what}: a list is needed, this is {kind(node)}")
    nodes: list[yaml.Node] = node.value
    return nodes


def text(node: yaml.Node, what: str) -> str:
    """Return a value that YAML reads as text."""
    if kind(node) != "text":
        raise refusal(node, f"{what}: text is needed, this is {kind(node)}{_advice(node)}")
    return written(node, what)


def written(node: yaml.Node, what: str) -> str:
    """Return a value as it is written, be it text, a number, a date, true or false."""
    if not isinstance(node, yaml.ScalarNode) or kind(node) == "nothing":
        raise refusal(node, f"{what}: text is needed, this is {kind(node)}{_advice(node)}")
    value: str = node.value
    if "\0" in value:
        raise refusal(node, f"{what}: holds a NUL character, which no command can be given")
    return value


class _NamedText(io.StringIO):
    """Text with a `name`, which the parser puts into every mark."""

    def __init__(self, name: str, content: str) -> None:
        super().__init__(content)
        self.name = name


def _decode(source: str, data: bytes) -> str:
    if len(data) > limits.DEFINITION_BYTES:
        raise InvalidDefinition(source, 0, f"is larger than {limits.DEFINITION_BYTES} bytes")
    try:
        decoded = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InvalidDefinition(source, line, f"is not UTF-8: byte 0x{data[error.start]:02x}") from error
    if found := _FORBIDDEN.search(decoded):
        line = decoded.count("\n", 0, found.start()) + 1
        code = f"U+{ord(found[0]):04X}"
        raise InvalidDefinition(source, line, f"holds the control character {code}; YAML allows none")
    return decoded


class _Gauge:
    """Measures a document by its events, each against its limit, before any of it is built."""

    def __init__(self) -> None:
        self.aliases = 0
        self.size = 0  # in characters, every alias counted as what it stands for
        self.sizes: dict[str | None, int] = {}
        self.open_nodes: list[tuple[str | None, int]] = []  # anchor, and the size before it

    def add(self, event: yaml.Event) -> None:
        match event:
            case yaml.AliasEvent():
                self._add_alias(event)
            case yaml.ScalarEvent():
                _refuse_tag(event)
                self.sizes[event.anchor] = 1 + len(event.value)
                self.size += 1 + len(event.value)
            case yaml.CollectionStartEvent():
                _refuse_tag(event)
                self.open_nodes.append((event.anchor, self.size))
                self.size += 1
                if len(self.open_nodes) > limits.DEFINITION_DEPTH:
                    raise refusal(event, f"is nested deeper than {limits.DEFINITION_DEPTH} levels")
            case yaml.CollectionEndEvent():
                anchor, before = self.open_nodes.pop()
                self.sizes[anchor] = self.size - before
        if self.size > EXPANDED_CHARS:
            raise refusal(event, f"is larger than {EXPANDED_CHARS} characters with its aliases expanded")

    def _add_alias(self, event: yaml.AliasEvent) -> None:
        self.aliases += 1
        if self.aliases > limits.DEFINITION_ALIASES:
            raise refusal(event, f"has more than {limits.DEFINITION_ALIASES} aliases")
        if any(event.anchor == anchor for anchor, _ in self.open_nodes):
            raise refusal(event, f"the alias *{event.anchor} stands for what it is part of")
        self.size += self.sizes.get(event.anchor, 0)


def _refuse_tag(event: yaml.ScalarEvent | yaml.CollectionStartEvent) -> None:
    if event.tag is not None:
        raise refusal(event, f"tags such as {shown(event.tag.replace(_TAG, '!!'))} are not allowed")


def _syntax_error(source: str, content: str, error: yaml.MarkedYAMLError) -> InvalidDefinition:
    """Say what the parser found, with a line that the file has."""
    mark = error.problem_mark or error.context_mark
    lines = content.splitlines() or [""]
    index = min(mark.line, len(lines) - 1) if mark else 0
    found = ", ".join(part for part in (error.context, error.problem) if part)
    hint = next((hint for words, hint in _HINTS.items() if words in found), None)
    if "cannot start any token" in found and mark:
        character = lines[index][mark.column : mark.column + 1]
        tab = character == "\t"
        hint = _HINTS["tab character"] if tab else f"a value cannot begin with {character!r}; write it in quotes"
    return InvalidDefinition(source, index + 1, _one_line(f"is not YAML: {hint or found}"))


def _one_line(problem: str) -> str:
    """Cut a message and escape what does not print: parts of it are the file's own words."""
    cut = problem if len(problem) <= _PROBLEM_CHARS else f"{problem[:_PROBLEM_CHARS]}..."
    return "".join(part if part.isprintable() else ascii(part)[1:-1] for part in cut)


def _entries(node: yaml.Node, what: str) -> Iterator[tuple[str, yaml.Node, yaml.Node]]:
    """Yield key, the key's node and the value's node of a mapping, and refuse a key that comes twice."""
    if not isinstance(node, yaml.MappingNode):
        raise refusal(node, f"{what}: a mapping is needed, this is {kind(node)}")
    lines: dict[str, int] = {}
    for key_node, value in node.value:
        if key_node.tag == f"{_TAG}merge":
            raise refusal(key_node, "merge keys (<<) are not supported; write the keys out")
        key = _key(key_node, f"a key of {what}")
        if key in lines:
            raise refusal(key_node, f"the key {shown(key)} is there twice, first in line {lines[key]}")
        lines[key] = key_node.start_mark.line + 1
        yield key, key_node, value


def _key(node: yaml.Node, what: str) -> str:
    # YAML 1.1 takes `on` for true; as a key it is meant as it is written.
    return written(node, what) if kind(node) == "true or false" else text(node, what)


def _suggestion(key: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(key[:_SHOWN_CHARS].lower(), known, n=1)
    return f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"


def _advice(node: yaml.Node) -> str:
    """Say how a plain value that YAML takes for something else becomes text."""
    if not isinstance(node, yaml.ScalarNode):
        return ""
    return f'; write "{node.value}" in quotes' if len(node.value) <= _SHOWN_CHARS else "; write it in quotes"
