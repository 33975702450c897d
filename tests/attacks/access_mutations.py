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
    (
        "T5",
        "actor_runtime/tls.py",
        "    context.hostname_checks_common_name = False  # a name in the subject is no identity (RFC 9525 §2)\n",
        "",
        ("tests/unit/test_actor_runtime_tls.py::test_a_server_is_who_its_san_says",),
    ),
    (
        "T7",
        "ro/initial_attach.py",
        'if attached.context.get("generation") != str(identity.generation):',
        "if False:",
        (
            "tests/integration/test_ro_service.py::test_an_attach_begun_by_the_former_holder_gives_no_access_to_the_next_ones_identity",
        ),
    ),
    (
        "T7",
        "ro/registrations.py",
        "            if before.state is State.DENIED and",
        "            if False and",
        ("tests/integration/test_ro_service.py::test_a_device_that_an_operator_refused_stays_out_with_that_identity",),
    ),
    (
        "T3",
        "ro/initial_attach.py",
        "sqn_after_resynchronisation(row.sqn, after)",
        "next_sqn(after)",
        ("tests/integration/test_ro_service.py::test_sequence_numbers_of_a_provisional_identity",),
    ),
    (
        "T12",
        "ro/initial_attach.py",
        "            except InvalidArgument as exc:\n",
        "            except ZeroDivisionError as exc:\n",
        ("tests/integration/test_ro_service.py::test_sequence_numbers_of_a_provisional_identity",),
    ),
    (
        "T12",
        "ro/initial_attach.py",
        "            repository.note_attach(connection, identity.id, now)\n",
        "",
        (
            "tests/integration/test_ro_service.py::test_attaches_of_one_identity_are_limited_and_strangers_do_not_use_them_up",
        ),
    ),
    (
        "T12",
        "ro/initial_attach.py",
        "identity = self._identities.may_attach(connection, attached.index, for_update=True)\n",
        ("identity = repository.find_identity(connection, attached.index)\n            assert identity is not None\n"),
        ("tests/integration/test_ro_service.py::test_responses_at_once_do_not_get_past_the_limit",),
    ),
    (
        "T12",
        "ro/gate.py",
        "self._recent_of[imsi] >= ASKED_PER_IDENTITY or ",
        "",
        ("tests/attacks/test_stolen_pcid.py::test_flooding_the_gate_is_bounded_before_the_pva_is_asked",),
    ),
    (
        "T12",
        "ro/gate.py",
        " or len(self._at_pva) >= self._rules.max_challenges",
        "",
        ("tests/attacks/test_stolen_pcid.py::test_the_gate_leaves_places_at_the_pva_to_others",),
    ),
    (
        "T12",
        "ro/registrations.py",
        "not isinstance(order_id, str) or not _ORDER_ID.fullmatch(order_id)",
        "not isinstance(order_id, str)",
        ("tests/integration/test_ro_service.py::test_an_order_id_that_is_none_leaves_the_registration_waiting",),
    ),
    (
        "T12",
        "actor_runtime/http.py",
        "        request.content.set_exception(_BodyTooSlow())\n",
        "        pass\n",
        ("tests/unit/test_actor_runtime_http.py::test_a_body_that_does_not_come_ends_the_request",),
    ),
    (
        "T3",
        "mcim/aka.py",
        "return following if seq_ms < following >> IND_BITS <= seq_ms + MAX_JUMP else next_sqn(sqn_ms)",
        "return next_sqn(sqn_ms)",
        ("tests/unit/test_aka.py::test_sqn_after_a_resynchronisation",),
    ),
    (
        "T12",
        "mcim/aka.py",
        "following >> IND_BITS <= seq_ms + MAX_JUMP",
        "following >> IND_BITS",
        ("tests/unit/test_aka.py::test_sqn_after_a_resynchronisation",),
    ),
    (
        "T3",
        "mcim/aka.py",
        "    if following > MAX_SQN:\n",
        "    if False:\n",
        ("tests/integration/test_sho_service.py::test_used_up_sequence_numbers_are_a_refusal",),
    ),
)
