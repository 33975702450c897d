"""Subscriptions out of CSV, as operators keep them: one line each, octets in hexadecimal."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from mcim.aka import EPS_AMF
from mcim.errors import InvalidArgument
from mcim.milenage import opc_from_op
from mcim.tuak import TuakParameters, topc_from_top
from mcim.vocabulary import AlgorithmId
from sho.subscriptions import ALGORITHMS, KEY_LENGTHS, Credential, SubscriptionError, generate

MILENAGE_COLUMNS: Final = ("opc", "op", "constants")
TUAK_COLUMNS: Final = ("topc", "top", "tuak")
SECRET_COLUMNS: Final = frozenset(("opc", "op", "topc", "top"))
COLUMNS: Final = frozenset(("imsi", "k", "algorithm", "amf", *MILENAGE_COLUMNS, *TUAK_COLUMNS))
AMF_LENGTH: Final = 2  # octets


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One subscription of a file."""

    credential: Credential
    amf: bytes = EPS_AMF


def read_csv(lines: Iterable[str]) -> list[Line]:
    """Subscriptions out of CSV with a header.

    Columns: `imsi`, `k`; `algorithm` (milenage when absent or empty, tuak128, tuak256); `opc` or `op`, `topc` or `top`;
    `constants` (MILENAGE: r1…r5, c1…c5, 85 octets) or `tuak` (iterations and lengths of MAC, RES, CK, IK, 5 octets)
    where they are not the defaults; `amf`.

    Raises:
        SubscriptionError: names line and column at fault, never the value.
    """
    reader = csv.DictReader(lines, skipinitialspace=True)
    try:
        names = {name.strip().lower() for name in reader.fieldnames or ()}
        if not {"imsi", "k"} <= names or not names & SECRET_COLUMNS:
            raise SubscriptionError("the first line must name the columns imsi, k, and opc, op, topc or top")
        found = []
        for row in reader:
            values = {
                (name or "").strip().lower(): value.strip() for name, value in row.items() if isinstance(value, str)
            }
            try:
                found.append(Line(credential=credential_of(values), amf=amf_of(values)))
            except SubscriptionError as exc:
                raise SubscriptionError(f"line {reader.line_num}: {exc}") from None
    except csv.Error as exc:
        raise SubscriptionError(f"line {reader.line_num}: not CSV") from exc
    return found


def credential_of(row: Mapping[str, str]) -> Credential:
    """The credential in one line, its columns by name.

    Raises:
        SubscriptionError: names the column at fault, never the value.
    """
    name = row.get("algorithm", "").lower() or "milenage"
    if name not in KEY_LENGTHS:
        raise SubscriptionError("algorithm: one of " + ", ".join(KEY_LENGTHS) + " is needed")
    algorithm, k = ALGORITHMS[name], octets(row, "k")
    if len(k) != KEY_LENGTHS[name][0]:
        raise SubscriptionError(f"k: {KEY_LENGTHS[name][0]} octets in hexadecimal are needed")
    own, foreign = MILENAGE_COLUMNS, TUAK_COLUMNS
    if algorithm is AlgorithmId.TUAK:
        own, foreign = foreign, own
    for column in foreign:
        if row.get(column):
            raise SubscriptionError(f"{column}: not with {name}")
    opc_column, op_column, constants_column = own
    constants = octets(row, constants_column) if row.get(constants_column) else b""
    if row.get(opc_column):
        opc = octets(row, opc_column)
    else:
        opc = _derived(algorithm, k, octets(row, op_column), constants, op_column)
    return Credential(imsi=row.get("imsi", ""), k=k, opc=opc, algorithm=algorithm, constants=constants)


def changed_credential(before: Credential, row: Mapping[str, str], *, new_keys: bool) -> Credential:
    """A credential with what one line of changes says; what has no column stays, the constants of the algorithm too.

    Args:
        new_keys: random new K and OPc or TOPc, of the same algorithm.

    Raises:
        SubscriptionError: a column that is not known, or that means nothing without a new K; else as `credential_of`.
    """
    unknown = row.keys() - COLUMNS
    if unknown:
        raise SubscriptionError("columns: only " + ", ".join(sorted(COLUMNS)) + " can change")
    without_k = {"algorithm", *SECRET_COLUMNS} & row.keys()
    if "k" in row and new_keys:
        raise SubscriptionError("k: either a new one or a random one")
    if "k" not in row and without_k:
        raise SubscriptionError(f"{min(without_k)}: only together with k")
    own, foreign = ("tuak", "constants") if before.algorithm is AlgorithmId.TUAK else ("constants", "tuak")
    after = replace(before, imsi=row["imsi"]) if "imsi" in row else before
    if "k" in row:
        label = row.get("algorithm", before.keys.label)
        same = ALGORITHMS.get(label.lower()) is before.algorithm
        kept = {own: before.constants.hex()} if same else {}
        return credential_of({**kept, **row, "algorithm": label, "imsi": after.imsi})
    if row.get(foreign):
        raise SubscriptionError(f"{foreign}: not with {before.keys.label}")
    if new_keys:
        fresh = next(generate(1, "00101", before.keys.label))
        after = replace(after, k=fresh.k, opc=fresh.opc)
    return replace(after, constants=octets(row, own)) if own in row else after


def amf_of(row: Mapping[str, str]) -> bytes:
    """The AMF in one line; the default of EPS when there is none.

    Raises:
        SubscriptionError: not two octets.
    """
    amf = octets(row, "amf") if row.get("amf") else EPS_AMF
    if len(amf) != AMF_LENGTH:
        raise SubscriptionError("amf: 2 octets in hexadecimal are needed")
    return amf


def octets(row: Mapping[str, str], name: str) -> bytes:
    """One column as octets.

    Raises:
        SubscriptionError: not hexadecimal.
    """
    try:
        return bytes.fromhex(row.get(name, ""))
    except ValueError:
        raise SubscriptionError(f"{name}: not hexadecimal") from None


def _derived(algorithm: AlgorithmId, k: bytes, op: bytes, constants: bytes, column: str) -> bytes:
    """OPc from OP, TOPc from TOP: the operator-wide value is used here and stored nowhere."""
    try:
        if algorithm is AlgorithmId.TUAK:
            iterations = TuakParameters.parse(constants).iterations if constants else 1
            return topc_from_top(k, op, iterations)
        if len(op) != KEY_LENGTHS["milenage"][1]:
            raise InvalidArgument("OP is 16 octets")
        return opc_from_op(k, op)
    except InvalidArgument as exc:
        raise SubscriptionError(f"{column}: {exc}") from None
