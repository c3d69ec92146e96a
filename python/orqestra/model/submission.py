"""Jobs as they are submitted together, by columns: what they have in common is told once."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from orqestra.model.job import JobSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Submission:
    """Checked jobs of one caller, to be stored all or none.

    A kind is what jobs share: a JobSpec whose payload and key do not count. `kind_of`, `payloads` and `keys`
    have an entry for each job; `keys` is empty where none has one.
    """

    kinds: Sequence[JobSpec]
    kind_of: list[int]
    payloads: list[bytes]
    keys: list[str | None]

    @classmethod
    def of(cls, specs: Sequence[JobSpec]) -> Self:
        """Return jobs that were checked one by one."""
        numbers: dict[JobSpec, int] = {}
        kind_of = [numbers.setdefault(replace(spec, payload=b"", key=None), len(numbers)) for spec in specs]
        keys = [spec.key for spec in specs]
        return cls(
            kinds=list(numbers),
            kind_of=kind_of,
            payloads=[spec.payload for spec in specs],
            keys=keys if any(keys) else [],
        )

    def __len__(self) -> int:
        return len(self.payloads)

    @property
    def payload_bytes(self) -> int:
        """How many bytes the payloads have."""
        return sum(map(len, self.payloads))

    @property
    def is_repeatable(self) -> bool:
        """Whether every job has a key: storing it again stores nothing twice."""
        return bool(self.keys) and None not in self.keys
