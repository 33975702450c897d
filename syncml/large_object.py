"""Large objects on their way in: chunks become one Item again (OMA-TS-DM_Protocol-V1_2 §7).

A chunk is text, or octets in WBXML. Octets are joined before anything is made of them: peers cut where their message is
full, be it inside a character or a group of Base64.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from syncml.codes import StatusCode
from syncml.document_text import user_data
from syncml.model import Item, Meta
from syncml.values import transmitted_size


@dataclass(slots=True, kw_only=True)
class Reassembly:
    """The one large object that may be on its way in a session, and what came of it so far."""

    limit: int  # octets, our MaxObjSize
    key: tuple[str, str] | None = None  # command name and node URI; None: no object is open
    meta: Meta | None = None  # of the first chunk
    octets: bytearray = field(default_factory=bytearray, repr=False)  # so far, never more than `limit`
    as_text: bool = True  # all chunks were text
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
            size). `Size` counts octets of Data as transmitted, so Base64 is decoded after the check, not before. It is
            believed of the first chunk that has it.
        """
        key = (name, item.target or item.source or "")
        size = item.meta.size if item.meta is not None else None
        data = item.data or ""
        if self.key is not None and key != self.key:
            if not item.more_data:
                return item
            self.interrupt()  # another object begins: they never mix
        if self.key is None:
            if key == self.given_up and (size is None or (not item.more_data and size != transmitted_size(data))):
                # A peer that goes on in spite of our refusal: the tail of an object must not pass as a whole value.
                return self.refusal
            if not item.more_data:
                return item
            self.given_up = None
            self.key, self.meta = key, item.meta
        elif item.meta is not None and (self.meta is None or self.meta.size is None):
            self.meta = (self.meta or Meta()).inherited_by(item.meta)
        meta = self.meta or Meta()
        expected = meta.size
        if (expected or 0) > self.limit or len(self.octets) + transmitted_size(data) > self.limit:
            return self._give_up(key, StatusCode.REQUEST_ENTITY_TOO_LARGE)
        self.as_text = self.as_text and isinstance(data, str)
        self.octets += data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass")
        if item.more_data:
            return StatusCode.CHUNK_ACCEPTED
        if expected is not None and expected != len(self.octets):
            return self._give_up(key, StatusCode.SIZE_MISMATCH)
        whole = replace(item, meta=self.meta, data=self._joined(meta), more_data=False)
        self.drop()
        return whole

    def _joined(self, meta: Meta) -> str | bytes:
        if self.as_text:
            return self.octets.decode("utf-8", "surrogatepass")
        return user_data((bytes(self.octets),), meta.format, meta.type)

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
        self.key, self.meta, self.octets, self.as_text = None, None, bytearray(), True

    def _give_up(self, key: tuple[str, str], code: int) -> int:
        self.drop()
        self.given_up, self.refusal = key, code
        return code
