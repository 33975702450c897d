"""What the `?list=` of a Get asks for: structure, values, or a serialised tree (OMA-TS-DM_RepPro-V1_2, Get)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Self

from syncml.codes import StatusCode
from syncml.errors import RemoteProtocolError


class UnsupportedList(RemoteProtocolError):
    """A `?list=` that nobody defined, or with a property nobody knows."""

    code = StatusCode.OPTIONAL_FEATURE_NOT_SUPPORTED


class ListKind(StrEnum):
    """The forms of an answer."""

    STRUCT = "Struct"  # an Item per node, without values
    STRUCT_DATA = "StructData"  # an Item per node, leaves with their values
    TNDS = "TNDS"  # one Item with a serialised tree


class ListProperty(StrEnum):
    """What a serialised tree may say of a node beside its name."""

    ACL = "ACL"
    FORMAT = "Format"
    NAME = "Name"
    SIZE = "Size"
    TITLE = "Title"
    T_STAMP = "TStamp"
    TYPE = "Type"
    VER_NO = "VerNo"
    VALUE = "Value"


ALL_PROPERTIES: Final = frozenset(ListProperty)


@dataclass(frozen=True, slots=True)
class ListQuery:
    """A parsed `?list=`; `properties` are those to serialise and matter for TNDS alone."""

    kind: ListKind
    properties: frozenset[ListProperty] = ALL_PROPERTIES

    @classmethod
    def parse(cls, value: str) -> Self:
        """The value of a `?list=`, e.g. `Struct`, `TNDS+ACL+Value` (only those) or `TNDS-Format` (all but that).

        The plus sign stands literally in a URI, and escaped (`%2B`) with peers that escape it.

        Raises:
            UnsupportedList: anything else, signs mixed included.
        """
        text = value.replace("%2B", "+").replace("%2b", "+").replace("%2D", "-").replace("%2d", "-")
        if text in tuple(ListKind):
            return cls(ListKind(text))
        sign = text.removeprefix(ListKind.TNDS)[:1]
        if not text.startswith(ListKind.TNDS) or sign not in ("+", "-"):
            raise UnsupportedList("a list nobody defined")
        names = text.removeprefix(ListKind.TNDS)[1:].split(sign)
        if not set(names) <= ALL_PROPERTIES:
            raise UnsupportedList("a property nobody knows, or signs mixed")
        named = frozenset(ListProperty(name) for name in names)
        return cls(ListKind.TNDS, named if sign == "+" else ALL_PROPERTIES - named)

    def __str__(self) -> str:
        """The value as it stands in a URI, in one form for one meaning."""
        if self.kind is not ListKind.TNDS or self.properties == ALL_PROPERTIES:
            return self.kind.value
        named = [each for each in ListProperty if each in self.properties]
        left_out = [each for each in ListProperty if each not in self.properties]
        sign, names = ("+", named) if named and len(named) <= len(left_out) else ("-", left_out)
        return self.kind.value + "".join(sign + each for each in names)
