"""Looks for a secret in octets, in every form in which a program could carelessly leave it."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from pathlib import Path

CHUNK = 1 << 24  # octets of memory read at a time


def forms_of_key(name: str, key: bytes) -> dict[str, bytes]:
    """A binary key: raw, hexadecimal, Base64 at each of its three alignments."""
    return {f"{name}, raw": key, **_text_forms(name, key)}


def forms_of_digits(name: str, digits: str) -> dict[str, bytes]:
    """A number like an IMSI: its digits, the same in hexadecimal and Base64, and in semi-octets."""
    text = digits.encode("ascii")
    found = {f"{name}, digits": text, f"{name}, UTF-16": digits.encode("utf-16-le"), **_text_forms(name, text)}
    parity = f"{'9' if len(digits) % 2 else '1'}{digits}"  # TS 31.102 §4.2.2
    for kind, nibbles in (("TBCD", digits), ("EF_IMSI", parity)):
        semi = semi_octets(nibbles)
        found |= {f"{name}, {kind}": semi, **_text_forms(f"{name}, {kind}", semi)}
    return found


def semi_octets(digits: str) -> bytes:
    """Two digits an octet, the first in the low half, filled up with F."""
    padded = digits + "f" * (len(digits) % 2)
    return bytes.fromhex("".join(padded[i + 1] + padded[i] for i in range(0, len(padded), 2)))


def _text_forms(name: str, octets: bytes) -> dict[str, bytes]:
    found = {f"{name}, hex": octets.hex().encode(), f"{name}, HEX": octets.hex().upper().encode()}
    for offset in range(3):
        first, last = -(-offset * 8 // 6), (offset + len(octets)) * 8 // 6  # characters that only these octets decide
        text = base64.b64encode(bytes(offset) + octets)[first:last]
        found[f"{name}, Base64 at {offset}"] = text
        found[f"{name}, URL Base64 at {offset}"] = text.translate(bytes.maketrans(b"+/", b"-_"))
    return found


def search(octets: bytes, forms: dict[str, bytes]) -> set[str]:
    """Names of the forms that are in there."""
    return {name for name, form in forms.items() if form in octets}


def search_files(root: Path, forms: dict[str, bytes]) -> set[str]:
    """The same for all files below a directory, with their paths."""
    return {
        f"{path.relative_to(root)}: {name}"
        for path in sorted(root.rglob("*"))
        if path.is_file()
        for name in search(path.read_bytes(), forms)
    }


def search_memory(pid: int, forms: dict[str, bytes]) -> set[str]:
    """The same for the memory of a live process (Linux; it must be ours, or a child of ours)."""
    overlap = max(map(len, forms.values())) - 1
    found: set[str] = set()
    for region in _regions(pid, overlap):
        found |= search(region, forms)
    return found


def _regions(pid: int, overlap: int) -> Iterator[bytes]:
    """Readable and writable memory, in pieces that overlap; program text and read-only files are not its own."""
    maps = Path(f"/proc/{pid}/maps").read_text()
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for start_text, end_text in re.findall(r"^([0-9a-f]+)-([0-9a-f]+) rw", maps, re.MULTILINE):
            start, end = int(start_text, 16), int(end_text, 16)
            rest = b""
            while start < end:
                try:
                    memory.seek(start)
                    piece = memory.read(min(CHUNK, end - start))
                except OSError:  # [vvar] and the like, or gone meanwhile
                    break
                if not piece:
                    break
                yield rest + piece
                rest = piece[-overlap:]
                start += len(piece)
