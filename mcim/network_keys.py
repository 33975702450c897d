"""What an MCIM authenticates to its network with: algorithm, keys and constants, and the functions they make."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from mcim.errors import InvalidArgument
from mcim.milenage import Milenage, MilenageConstants
from mcim.tuak import Tuak, TuakParameters
from mcim.vocabulary import AlgorithmId


class AuthenticationFunctions(Protocol):
    """f1 to f5 and their resynchronisation forms (TS 33.102 §6.3) for one subscriber."""

    @property
    def mac_length(self) -> int:
        """Octets of MAC-A and MAC-S."""

    def f1(self, rand: bytes, sqn: bytes, amf: bytes) -> bytes:
        """MAC-A."""

    def f1_star(self, rand: bytes, sqn: bytes, amf: bytes) -> bytes:
        """MAC-S."""

    def f2(self, rand: bytes) -> bytes:
        """RES."""

    def f3(self, rand: bytes) -> bytes:
        """CK."""

    def f4(self, rand: bytes) -> bytes:
        """IK."""

    def f5(self, rand: bytes) -> bytes:
        """AK, 6 octets."""

    def f5_star(self, rand: bytes) -> bytes:
        """AK for resynchronisation, 6 octets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkKeys:
    """Algorithm and keys of one subscriber; nothing secret is in the repr."""

    algorithm: AlgorithmId
    k: bytes = field(repr=False)  # 16 octets; 16 or 32 with TUAK
    opc: bytes = field(repr=False)  # OPc, 16 octets (MILENAGE), or TOPc, 32 octets (TUAK)
    constants: bytes = b""  # value of MIL_CONST (85 octets) or TUAK_PARAM (5 octets); empty: the defaults

    def functions(self) -> AuthenticationFunctions:
        """The authentication functions.

        Raises:
            InvalidArgument: lengths or constants do not fit the algorithm, or there is no code for it here.
        """
        if self.algorithm is AlgorithmId.MILENAGE:
            if not self.constants:
                return Milenage(self.k, self.opc)
            return Milenage(self.k, self.opc, MilenageConstants.parse(self.constants))
        if self.algorithm is AlgorithmId.TUAK:
            if not self.constants:
                return Tuak(self.k, self.opc)
            return Tuak(self.k, self.opc, TuakParameters.parse(self.constants))
        raise InvalidArgument(f"no code for {self.algorithm.name}")

    @property
    def explicit_constants(self) -> bytes:
        """`constants`, with the defaults written out: the value of MIL_CONST or TUAK_PARAM."""
        if self.constants:
            return self.constants
        return (TuakParameters() if self.algorithm is AlgorithmId.TUAK else MilenageConstants()).encode()

    @property
    def label(self) -> str:
        """Name as M2MMobj/TRE/Algorithms lists it: milenage, tuak128 or tuak256; no TRE here lists xor-test or code."""
        if self.algorithm is AlgorithmId.TUAK:
            return f"tuak{8 * len(self.k)}"
        return self.algorithm.name.lower().replace("_", "-")
