"""A trusted environment to attack, what an attacker needs for it, and how "nothing happened" is judged."""

from __future__ import annotations

import copy
import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from dmclient.tre.base import Hints, Outcome
from dmclient.tre.environment import Tre
from dmclient.tre.profiles import PROFILES
from mcim.authority import Authority
from mcim.certificates import Role
from mcim.vocabulary import Container, RegistrationState, ResultCode
from tests.support_tre import M2ME_ID, NO_HINTS, NOW, OTHER_SHO, SHO, TRE_ID, World

STRUCTURE = (ResultCode.SIGNATURE_INVALID, ResultCode.MALFORMED)
"""What a package gets that has not exactly the one structure, or whose signature does not fit."""

XML_ONLY = replace(PROFILES["software"], containers=(Container.XML,))
PKI_TIME = NOW - timedelta(days=30)


class Arena(World):
    """A `World` whose authorities stay at hand, so that they can be asked for what they should never issue."""

    good: bytes  # an honest package for the registration that is open

    def _certify(self) -> None:
        self.manufacturer_root = Authority.create_root("Manufacturer root", PKI_TIME)
        self.manufacturer = self.manufacturer_root.create_subordinate("Manufacturer CA", PKI_TIME)
        self.operator_root = Authority.create_root("Operator root", PKI_TIME)
        self.operator = self.operator_root.create_subordinate("Operator CA", PKI_TIME)
        issue = self.manufacturer.issue_platform
        names = {"tre_id": TRE_ID, "m2me_id": M2ME_ID, "now": PKI_TIME}
        assert isinstance(self.attest_key, ec.EllipticCurvePublicKey)
        self.certificates = (
            issue(Role.PLATFORM, self.platform_key, **names),
            issue(Role.ATTEST, self.attest_key, **names),
            list(self.manufacturer.intermediates),
            [self.operator_root.certificate],
        )
        self.tre.install_certificates(*self.certificates)
        self.signers = {name: self.certified(self.operator, name) for name in (SHO, OTHER_SHO)}

    def certified(
        self, authority: Authority, identity: str, role: Role = Role.SHO, **options: Any
    ) -> tuple[ec.EllipticCurvePrivateKey, list[x509.Certificate]]:
        """A new key with its certificate and the chain below the root."""
        key = ec.generate_private_key(ec.SECP256R1())
        leaf = authority.issue_role(role, key.public_key(), identity=identity, **({"now": PKI_TIME} | options))
        return key, [leaf, *authority.intermediates]

    def signed_by(self, key: ec.EllipticCurvePrivateKey, chain: Sequence[x509.Certificate], **options: Any) -> bytes:
        """A package right in everything but its signer."""
        self.signers["attacker"] = (key, list(chain))
        return self.package(signer="attacker", **options)

    def copied(self, directory: Path) -> Arena:
        """The same device in another directory: what happens to it is forgotten after the test."""
        shutil.copytree(self.directory, directory)
        arena = copy.copy(self)
        arena.directory = directory
        arena.signers = dict(self.signers)
        arena.reopen()
        return arena


def make_arena(directory: Path, **options: Any) -> Arena:
    """A device with an open registration and the honest package for it."""
    arena = Arena(directory, **({"profile": XML_ONLY} | options))
    arena.register()
    arena.good = arena.package()
    return arena


def state_of(tre: Tre) -> tuple[Any, ...]:
    """All that an attack could want to change: what is installed, and the registration with its nonce."""
    return (tre.mcims(), tre.registration(NOW), tre.facts())


def refused(
    arena: Arena,
    package: bytes,
    *codes: ResultCode,
    hints: Hints = NO_HINTS,
    now: datetime = NOW,
    ends: bool = False,
) -> Outcome:
    """Hand a package over; it must be refused with one of `codes`, and a receipt that says so is all that comes of it.

    With `ends` the refusal is one that ends the registration, still without any change of what is installed.
    """
    before = state_of(arena.tre)
    outcome = arena.provision(package, hints, now)
    assert outcome.code in codes, (outcome.code, outcome.checks[-1:])
    assert outcome.mcim is None
    assert [record.passed for record in outcome.checks].count(False) == 1
    receipt = arena.receipt_of(outcome)
    assert (receipt.result, receipt.tre_id) == (outcome.code, TRE_ID)
    assert receipt.package_hash == hashlib.sha256(package).digest()
    after = state_of(arena.tre)
    if ends:
        assert after[0] == before[0]
        assert after[1].state is RegistrationState.FAILED
    else:
        assert after == before
    return outcome


def still_provisions(arena: Arena, package: bytes | None = None) -> None:
    """The attack cost the device nothing: the honest package goes in as if nothing had been."""
    outcome = arena.provision(arena.good if package is None else package)
    assert outcome.code is ResultCode.SUCCESS, outcome.checks[-1:]
