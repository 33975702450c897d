"""Checks of registration operator, TLS, and records: what is there, what stands there without, who misses it.

Rows for `tests.attacks.mutations`: threat, file, text of the check (once in the file), text without the check, and the
tests of which at least one must fail then.
"""

from __future__ import annotations

from typing import Final

ROWS: Final[tuple[tuple[str, str, str, str, tuple[str, ...]], ...]] = (
    (
        "T1",
        "actor_runtime/sealing.py",
        "return VERSION + nonce + self._aead.encrypt(nonce, plaintext, VERSION + aad)",
        ("return VERSION + nonce + plaintext + self._aead.encrypt(nonce, plaintext, VERSION + aad)[-16:]"),
        ("tests/unit/test_actor_runtime_basics.py::test_what_is_sealed_opens",),
    ),
    (
        "T1",
        "actor_runtime/tls.py",
        "context.verify_mode = ssl.CERT_REQUIRED",
        "context.verify_mode = ssl.CERT_NONE",
        (("tests/integration/test_dmserver_http.py::test_the_process_serves_both_listeners_over_tls_and_stops"),),
    ),
    (
        "T1",
        "actor_runtime/tls.py",
        ("    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies chain and host name\n"),
        (
            "    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)\n    context.check_hostname"
            ", context.verify_mode = False, ssl.CERT_NONE\n"
        ),
        (("tests/integration/test_dmclient_transport.py::test_name_in_the_certificate_may_be_another_than_the_host"),),
    ),
    (
        "T1",
        "dmserver/redaction.py",
        ('header = dataclasses.replace(header, cred=dataclasses.replace(header.cred, data="[redacted]"))'),
        "pass",
        ("tests/unit/test_dmserver_answers.py::test_redaction_takes_out_what_is_secret",),
    ),
    (
        "T7",
        "ro/registrations.py",
        "        if not own:\n",
        "        if False:\n",
        (("tests/attacks/test_stolen_pcid.py::test_a_pcid_that_a_device_registered_with_is_its_own"),),
    ),
    (
        "T7",
        "ro/registrations.py",
        "access.m2me_id in (None, body.m2me_id) and (",
        "True and (",
        (("tests/attacks/test_stolen_pcid.py::test_one_token_serves_one_device_whatever_the_policy"),),
    ),
    (
        "T7",
        "ro/registrations.py",
        "identity.m2me_id in (None, body.m2me_id)\n",
        "True\n",
        (("tests/attacks/test_stolen_pcid.py::test_a_pcid_that_a_device_registered_with_is_its_own"),),
    ),
    (
        "T7",
        "ro/registrations.py",
        ('        if access is None:\n            return RegistrationDenied(401, "access-token-refused")\n'),
        "",
        (
            (
                "tests/integration/test_ro_service.py::test_a_token_opens_the_registration_functi"
                "on_for_its_time_and_nothing_longer"
            ),
        ),
    ),
    (
        "T8",
        "actor_runtime/sealing.py",
        "self._aead.encrypt(nonce, plaintext, VERSION + aad)",
        "self._aead.encrypt(nonce, plaintext, VERSION)",
        ("tests/unit/test_actor_runtime_basics.py::test_what_is_sealed_opens",),
    ),
    (
        "T12",
        "ro/initial_attach.py",
        ("if repository.attaches_since(connection, row.id, now - repository.WINDOW) >= self._per_hour:"),
        "if False:",
        (
            (
                "tests/integration/test_ro_service.py::test_attaches_of_one_identity_are_limited_"
                "and_strangers_do_not_use_them_up"
            ),
        ),
    ),
    (
        "T12",
        "ro/initial_attach.py",
        "return vno if vno is not None and _VNO.fullmatch(vno) else UNKNOWN_NETWORK",
        "return vno or UNKNOWN_NETWORK",
        (
            (
                "tests/integration/test_ro_service.py::test_refusals_look_the_same_are_counted_by"
                "_network_and_say_when_to_come_again"
            ),
        ),
    ),
    (
        "T12",
        "ro/registrations.py",
        "if not repository.use_token(connection, digest, limit=MAX_USES):",
        "if False:",
        ("tests/integration/test_ro_service.py::test_calls_with_one_token_are_bounded",),
    ),
    (
        "T12",
        "ro/registrations.py",
        "(self._rules.push_to_peer_only and not _same_address(named, peer))",
        "False",
        (("tests/integration/test_ro_service.py::test_where_the_request_comes_from_is_where_the_bootstrap_goes"),),
    ),
    (
        "T13",
        "ro/identities.py",
        "return hmac.new(self._index_key, imsi.encode(), hashlib.sha256).digest()",
        "return imsi.encode()",
        (("tests/unit/test_ro_store.py::test_an_identity_opens_with_its_key_in_its_place_and_generation_alone"),),
    ),
    (
        "T13",
        "ro/identities.py",
        'self._key.seal(identity.imsi.encode(), b"ro|pcid|imsi|" + index)',
        "identity.imsi.encode()",
        (("tests/unit/test_ro_store.py::test_an_identity_opens_with_its_key_in_its_place_and_generation_alone"),),
    ),
)
