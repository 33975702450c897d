"""Checks on packages, contents, certificates and tokens: what is there, what stands there without it, who misses it.

Rows for the runner that takes checks out of a copy of the project: threat, file, text of the check (once in the file),
text without the check, and the tests of which at least one must fail then.
"""

from __future__ import annotations

from typing import Final

_FORGED, _WRAPPING, _DOWNGRADE, _REPLAY, _CERTIFICATES, _ORACLES, _TOKEN, _LIMITS, _CODE = (
    f"tests/attacks/test_{name}.py"
    for name in (
        "forged_packages", "signature_wrapping", "algorithm_downgrade", "replay_and_splicing", "certificates",
        "oracles", "device_token", "resource_limits", "downloaded_code",
    )
)  # fmt: skip
_CONTENT, _CONSTANTS = "tests/unit/test_algorithm_content.py", "tests/unit/test_milenage_constants.py"
_PACKAGE, _HEADER, _XML = "mcim/package.py", "mcim/package_header.py", "mcim/xml_security.py"
_EXAMINE, _TRE, _CERT = "dmclient/tre/provisioning.py", "dmclient/tre/environment.py", "mcim/certificates.py"

ROWS: Final[tuple[tuple[str, str, str, str, tuple[str, ...]], ...]] = (
    # the package as it comes
    ("T12", _EXAMINE, "_require(len(package) <= state.max_package", "_require(True", (_LIMITS,)),
    ("T12", _HEADER, "if len(package) > MAX_PACKAGE_SIZE:", "if False:", (_LIMITS,)),
    ("T12", _HEADER, "resolve_entities=False", "resolve_entities=True", (_LIMITS,)),
    ("T12", _HEADER, "huge_tree=False", "huge_tree=True", (_LIMITS,)),
    ("T12", _HEADER, '_matched("[0-9]{1,19}"', '_matched("[0-9]+"', (_LIMITS,)),
    ("T12", _XML, "if not 1 <= len(certificates) <= MAX_CHAIN:", "if not certificates:", (_LIMITS,)),
    ("T2", _HEADER, "if any(not isinstance(element.tag, str) for element in root.iter()):", "if False:", (_WRAPPING,)),
    ("T2", _HEADER, "tree.docinfo.internalDTD is not None or tree.docinfo.doctype or beside", "beside", (_WRAPPING,)),
    ("T2", _HEADER, "tree.docinfo.doctype or beside:", "tree.docinfo.doctype:", (_WRAPPING,)),
    ("T2", _PACKAGE, "if len(root) != parts or any", "if any", (_WRAPPING,)),
    ("T2", _PACKAGE, "    require_signature(root[-1])", "    pass", (_WRAPPING,)),
    (
        "T2",
        _PACKAGE,
        "        require_encrypted_data(root[1], ec=header.ephemeral_key is not None)",
        "        pass",
        (_WRAPPING,),
    ),
    ("T2", _PACKAGE, "    _verify_signature(root, signer)", "    pass", (_FORGED,)),
    ("T12", _XML, "\nxmlsec.cleanup_callbacks()", "", (_WRAPPING,)),
    # algorithms
    (
        "T16",
        _XML,
        '            raise PackageRefused(ResultCode.UNSUPPORTED_SUITE, f"{name} has',
        '            return\n            raise PackageRefused(ResultCode.UNSUPPORTED_SUITE, f"{name} has',
        (_DOWNGRADE,),
    ),
    ("T16", _EXAMINE, "_require(header.suite in state.suites", "_require(True", (_DOWNGRADE,)),
    ("T16", _EXAMINE, "frozenset({verified.header.suite})", "frozenset(range(9))", (_DOWNGRADE,)),
    ("T15", _EXAMINE, "        require_algorithm(content, state)", "        pass", (_CODE, _CONTENT)),
    ("T15", "dmclient/tre/algorithms.py", "if content.code is None:", "if True:", (_CONTENT,)),
    ("T15", "mcim/content.py", "    if algorithm not in _OPC_TYPE:", "    if False:", (_CODE,)),
    ("T15", "mcim/content.py", "if not hmac.compare_digest(code.digest", "if not (code.digest", (_CONTENT,)),
    ("T2", "mcim/content.py", "NetworkKeys(**keys).functions()", "NetworkKeys(**keys)", (_CONTENT,)),
    ("T2", "mcim/milenage.py", "strict=True))) != 5:", "strict=True))) < 0:", (_CONSTANTS, _CONTENT)),
    # who signed
    ("T5", _PACKAGE, "if header.sho_id != expected_sho_id:", "if False:", (_FORGED,)),
    ("T5", _PACKAGE, "identity=expected_sho_id", "identity=None", (_FORGED, _CERTIFICATES)),
    ("T5", _CERT, "_ROLE_EKUS & set(ekus) != {role.eku} or not", "not", (_CERTIFICATES,)),
    ("T5", _CERT, " or not _usage_fits(usage, key, role):", ":", (_CERTIFICATES,)),
    ("T5", _CERT, "if leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:", "if False:",
     (_CERTIFICATES,)),
    ("T6", _CERT, "if _PURPOSE.get(role, anchors.purpose) != anchors.purpose:", "if False:", (_CERTIFICATES,)),
    ("T5", _CERT, "        _check_revocation(path, crls, now)", "        pass", (_CERTIFICATES,)),
    ("T12", _CERT, "or not crl.is_signature_valid(issuer.public_key())", "", (_CERTIFICATES,)),
    ("T16", _CERT, " and isinstance(key.curve, ec.SECP256R1))", ")", (_CERTIFICATES,)),
    ("T16", _CERT, "if not MIN_RSA_BITS <= key.key_size", "if not 0 <= key.key_size", (_CERTIFICATES,)),
    ("T12", _CERT, ".max_chain_depth(MAX_CHAIN_DEPTH)", ".max_chain_depth(8)", (_CERTIFICATES,)),
    # for whom, when, and once
    ("T4", _EXAMINE, "_require(mine, ", "_require(True, ", (_FORGED,)),
    ("T4", _EXAMINE, "_require(content.tre_id == header.tre_id", "_require(True", (_FORGED,)),
    ("T5", _EXAMINE, "_require(content.sho_id == header.sho_id", "_require(True", (_FORGED,)),
    ("T3", _EXAMINE, "_require(fresh and record.is_open", "_require(record.is_open", (_REPLAY,)),
    ("T3", _EXAMINE, "fresh and record.is_open", "fresh", (_REPLAY,)),
    ("T3", _EXAMINE, "_require(header.sequence >= lowest", "_require(True", (_REPLAY,)),
    ("T3", _EXAMINE, "content.sequence == header.sequence", "True", (_REPLAY,)),
    ("T3", _EXAMINE, "hmac.compare_digest(content.registration_nonce or header.registration_nonce",
     "hmac.compare_digest(header.registration_nonce", (_REPLAY,)),
    ("T2", _EXAMINE, "content.mcim_id == header.mcim_id", "True", (_REPLAY,)),
    ("T2", _EXAMINE, "content.operation is header.operation", "True", (_REPLAY,)),
    ("T2", _EXAMINE, "content.transaction_id in (None, header.transaction_id)", "True", (_REPLAY,)),
    ("T3", _EXAMINE, 'in_force, ResultCode.OUTSIDE_VALIDITY, "outside', 'True, ResultCode.OUTSIDE_VALIDITY, "outside',
     (_REPLAY,)),
    ("T3", _EXAMINE, 'in_force, ResultCode.OUTSIDE_VALIDITY, "the', 'True, ResultCode.OUTSIDE_VALIDITY, "the',
     (_REPLAY,)),
    ("T3", _TRE, "examined.revision < installed.revision", "False", (_REPLAY,)),
    ("T12", _EXAMINE, "room = len(state.mcims)", "room = True or len(state.mcims)", (_LIMITS,)),
    # opening
    ("T2", "mcim/mcim_object.py",
     "if not hmac.compare_digest(suites.mac(row, pik, header, ciphertext), received) or failed:", "if failed:",
     (_REPLAY,)),
    ("T2", "mcim/mcim_object.py", '        keys = b""\n',
     '        raise PackageRefused(ResultCode.CRYPTO_FAILURE, "")\n', (_ORACLES,)),
    ("T2", "mcim/mcim_object.py", "    ciphertext, received = ",
     "    try:\n        suites.decrypt(row, pck, protected, header)\n    except ValueError:\n        pass\n"
     "    ciphertext, received = ", (_ORACLES,)),
    ("T2", _EXAMINE, "    except Exception:  # whatever", "    except KeyError:  # whatever", (_ORACLES,)),
    ("T2", _TRE, "if record.crypto_failures >= MAX_CRYPTO_FAILURES", "if False", (_ORACLES,)),
    ("T12", "mcim/data.py", "if length > MAX_PAYLOAD or end + 4 >= len(octets):", "if False:", (_LIMITS,)),
    # the device token
    ("T11", _TRE, "if verifier.tries_left <= 0:", "if False:", (_TOKEN,)),
    ("T11", _TRE, "self._commit(replace(self._state, token=replace(",
     "self._state = (replace(self._state, token=replace(", (_TOKEN,)),
    ("T11", _TRE, "if presented is None:", "if False:", (_TOKEN,)),
    ("T11", _TRE, "if not verifier.matches(presented):", "if False:", (_TOKEN,)),
    ("T11", _EXAMINE, "        ResultCode.TOKEN_WRONG,", "", (_TOKEN,)),
)  # fmt: skip
