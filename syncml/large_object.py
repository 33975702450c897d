"""Large objects on their way in: chunks become one Item again (OMA-TS-DM_Protocol-V1_2 §7)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from syncml.codes import StatusCode
from syncml.model import Item, Meta


@dataclass(slots=True, kw_only=True)
class Reassembly:
    """The one large object that may be on its way in a session, and what came of it so far."""

    limit: int  # octets, our MaxObjSize
    key: tuple[str, str] | None = None  # command name and node URI; None: no object is open
    meta: Meta | None = None  # of the first chunk
    parts: list[str] = field(default_factory=list, repr=False)
    length: int = 0  # octets so far
    given_up: tuple[str, str] | None = None  # key of an object refused in this package
    refusal: int = StatusCode.REQUEST_ENTITY_TOO_LARGE  # what its remaining chunks get

    @property
    def open(self) -> bool:
        """Whether a last chunk is outstanding."""
        return self.key is not None

    def take(self, name: str, item: Item) -> Item | int:
        """Take a chunk or a whole Item of the command `name`.

        Returns:
            The Item when it is whole, else the Status to answer: 213, 413 (over our limit) or 424 (not the announced
            size). `Size` counts octets of Data as transmitted, so Base64 is decoded after the check, not before.
        """
        key = (name, item.target or item.source or "")
        size = item.meta.size if item.meta is not None else None
        if self.key is None:
            if key == self.given_up and size is None:
                # A peer that goes on in spite of our refusal: the tail of an object must not pass as a whole value.
                return self.refusal
            if not item.more_data:
                return item
            self.given_up = None
            if size is not None and size > self.limit:
                return self._give_up(key, StatusCode.REQUEST_ENTITY_TOO_LARGE)
            self.key, self.meta = key, item.meta
        elif key != self.key and not item.more_data:
            return item
        text = item.data.decode("latin-1") if isinstance(item.data, bytes) else item.data or ""
        self.parts.append(text)
        self.length += len(text.encode())
        if self.length > self.limit:
            return self._give_up(key, StatusCode.REQUEST_ENTITY_TOO_LARGE)
        if item.more_data:
            return StatusCode.CHUNK_ACCEPTED
        meta, data, length = self.meta, "".join(self.parts), self.length
        if meta is not None and meta.size is not None and meta.size != length:
            return self._give_up(key, StatusCode.SIZE_MISMATCH)
        self.drop()
        return replace(item, meta=meta, data=data, more_data=False)

    def interrupted_by(self, name: str, items: tuple[Item, ...]) -> bool:
        """Whether this command comes before the last chunk of another (answered with Alert 1225)."""
        if self.key is None:
            return False
        uri = (items[0].target or items[0].source or "") if items else ""
        return self.key != (name, uri)

    def interrupt(self) -> str:
        """Give the open object up, because something else came before its last chunk; its URI."""
        if self.key is None:
            return ""
        uri = self.key[1]
        self._give_up(self.key, StatusCode.SIZE_MISMATCH)
        return uri

    def end_package(self) -> None:
        """The peer's package is complete: what it sends next to a node refused before is a new value."""
        self.given_up = None

    def drop(self) -> None:
        """Forget what came so far."""
        self.key, self.meta, self.parts, self.length = None, None, [], 0

    def _give_up(self, key: tuple[str, str], code: int) -> int:
        self.drop()
        self.given_up, self.refusal = key, code
        return code
