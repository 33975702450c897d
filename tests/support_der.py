"""DER as a tree that tests can damage: reads what our writer wrote, writes whatever it is told to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

CONSTRUCTED = 0x20


@dataclass
class Node:
    """One value: octets, or children when it is constructed."""

    tag: int
    octets: bytes = b""
    children: list[Node] = field(default_factory=list)

    def __getitem__(self, index: int) -> Node:
        return self.children[index]

    def at(self, *path: int) -> Node:
        node = self
        for index in path:
            node = node[index]
        return node

    def encode(self) -> bytes:
        body = b"".join(child.encode() for child in self.children) if self.tag & CONSTRUCTED else self.octets
        return bytes((self.tag,)) + length(len(body)) + body


def length(count: int) -> bytes:
    if count < 0x80:
        return bytes((count,))
    octets = count.to_bytes((count.bit_length() + 7) // 8, "big")
    return bytes((0x80 | len(octets),)) + octets


def parse(octets: bytes) -> Node:
    (node,) = _all(octets)
    return node


def _all(octets: bytes) -> Iterator[Node]:
    offset = 0
    while offset < len(octets):
        tag, first = octets[offset], octets[offset + 1]
        size = first & 0x7F if first & 0x80 else 0
        count = int.from_bytes(octets[offset + 2 : offset + 2 + size], "big") if size else first
        start = offset + 2 + size
        body = octets[start : start + count]
        yield Node(tag, children=list(_all(body))) if tag & CONSTRUCTED else Node(tag, body)
        offset = start + count


def oid(dotted: str) -> Node:
    from cryptography.hazmat import asn1
    from cryptography.x509 import ObjectIdentifier

    return parse(asn1.encode_der(ObjectIdentifier(dotted)))


def sequence(*children: Node) -> Node:
    return Node(0x30, children=list(children))


def set_of(*children: Node) -> Node:
    return Node(0x31, children=sorted(children, key=Node.encode))
