"""What a document type says to the WBXML reader and writer: its token tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

UNKNOWN_PUBLIC_ID: Final = 1  # "unknown or missing public identifier" (WBXML 1.3 §6.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class CodePages:
    """Token tables of one document type; each is code page → token → meaning (WBXML 1.3 §5.8)."""

    name: str  # for error texts
    root: str  # document element
    public_id: int | None  # registered number; None: only the formal identifier exists
    formal_id: str
    tags: Mapping[int, Mapping[int, str]]  # tokens without the content and attribute bits
    older_public_ids: frozenset[int] = frozenset()  # of earlier versions, whose tokens mean the same
    older_formal_ids: frozenset[str] = frozenset()
    attribute_starts: Mapping[int, Mapping[int, tuple[str, str]]] = field(default_factory=dict)  # name, value prefix
    attribute_values: Mapping[int, Mapping[int, str]] = field(default_factory=dict)
    tokens: Mapping[tuple[int, str], int] = field(init=False, repr=False)  # page and name → token: `tags` turned round

    def __post_init__(self) -> None:
        turned = {(page, name): token for page, names in self.tags.items() for token, name in names.items()}
        object.__setattr__(self, "tokens", turned)
