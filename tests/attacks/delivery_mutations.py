"""Checks of the DPF and the home operator: what is there, what stands there without, who misses it.

Rows for `tests.attacks.mutations`: threat, file, text of the check (once in the file), text without the check, and the
tests of which at least one must fail then.
"""

from __future__ import annotations

from typing import Final

ROWS: Final[tuple[tuple[str, str, str, str, tuple[str, ...]], ...]] = (
    (
        "T10",
        "sho/report.py",
        "known = row is not None and row.dpf_id in client_names",
        "known = row is not None",
        ("tests/integration/test_sho_operations.py::test_a_report_is_taken_from_the_dpf_of_its_order",),
    ),
    (
        "T2",
        "dmserver/reception.py",
        (
            "            hmac.compare_digest(\n                hashlib.sha256(given.package).h"
            "exdigest().encode(), given.package_hash.lower().encode()\n            ),"
        ),
        "            True,",
        (("tests/integration/test_dmserver_sessions.py::test_req32_what_the_home_operator_sends_must_be_a_package"),),
    ),
    (
        "T3",
        "dmserver/late_packages.py",
        "if order.req_id is None or late.req_id.lower() != order.req_id.lower():",
        "if False:",
        (("tests/integration/test_dmserver_late_packages.py::test_a_package_for_an_order_that_does_not_wait"),),
    ),
    (
        "T3",
        "dmserver/platform_checks.py",
        "snapshot.req_id not in expected.former_requests,",
        "True,",
        (("tests/unit/test_dmserver_platform_checks.py::test_req15_a_closed_request_does_not_open_again"),),
    ),
    (
        "T3",
        "dmserver/platform_checks.py",
        "snapshot.nonce_expiry is None or now < snapshot.nonce_expiry,",
        "True,",
        (("tests/unit/test_dmserver_platform_checks.py::test_req25_a_nonce_that_ran_out_is_not_handed_over"),),
    ),
    (
        "T3",
        "dmserver/reception.py",
        ('"RegistrationNonce": hmac.compare_digest(header.registration_nonce, order.nonce or b""),'),
        "",
        (("tests/integration/test_dmserver_sessions.py::test_req24_a_package_the_tre_would_refuse_is_not_delivered"),),
    ),
    (
        "T3",
        "dmserver/reception.py",
        "header.sequence == given.sequence >= facts.next_sequence",
        "header.sequence == given.sequence",
        (("tests/integration/test_dmserver_sessions.py::test_req24_a_package_the_tre_would_refuse_is_not_delivered"),),
    ),
    (
        "T3",
        "dmserver/reception.py",
        '"NotAfter": now < header.not_after,',
        "",
        (("tests/integration/test_dmserver_sessions.py::test_req24_a_package_the_tre_would_refuse_is_not_delivered"),),
    ),
    (
        "T3",
        "sho/handover.py",
        "hmac.compare_digest(row.nonce, body.nonce)\n",
        "True\n",
        (("tests/integration/test_sho_service.py::test_a_retry_gets_the_same_package_octet_for_octet"),),
    ),
    (
        "T3",
        "sho/report.py",
        "if not handovers.take_receipt_counter(connection, current.tre_id, receipt.counter):",
        "if False:",
        ("tests/integration/test_sho_operations.py::test_a_fall_back_is_bound_and_fresh",),
    ),
    (
        "T4",
        "dmserver/platform_checks.py",
        "snapshot.m2me_id == expected.device_id,",
        "True,",
        ("tests/unit/test_dmserver_platform_checks.py::test_req14_tree_of_another_device",),
    ),
    (
        "T4",
        "dmserver/platform_checks.py",
        "platform.m2me_id == attest.m2me_id == snapshot.m2me_id,",
        "True,",
        (("tests/unit/test_dmserver_platform_checks.py::test_req14_certificates_of_two_devices_do_not_go_together"),),
    ),
    (
        "T4",
        "dmserver/platform_validation.py",
        "        ticket.check_binding(\n",
        "        dict(\n",
        (("tests/integration/test_dmserver_sessions.py::test_req19_a_ticket_that_is_not_exactly_right_is_refused"),),
    ),
    (
        "T4",
        "dmserver/platform_validation.py",
        "if ticket.m2me_id != order.device_id or order.sho_id not in ticket.audience:",
        "if False:",
        (("tests/integration/test_dmserver_sessions.py::test_req19_a_ticket_that_is_not_exactly_right_is_refused"),),
    ),
    (
        "T4",
        "dmserver/platform_validation.py",
        '            self._read_ticket(self._order.ticket or "", now)\n',
        "            pass\n",
        (("tests/integration/test_dmserver_late_packages.py::test_t4_a_kept_ticket_is_about_one_platform_key"),),
    ),
    (
        "T4",
        "dmserver/reception.py",
        '"TREId": header.tre_id == facts.tre_id,',
        "",
        (("tests/integration/test_dmserver_sessions.py::test_req24_a_package_the_tre_would_refuse_is_not_delivered"),),
    ),
    (
        "T4",
        "dmserver/reception.py",
        '"PlatformKeyId": header.platform_key_id == facts.platform_key_id,',
        "",
        (("tests/integration/test_dmserver_sessions.py::test_req24_a_package_the_tre_would_refuse_is_not_delivered"),),
    ),
    (
        "T4",
        "sho/platform_checks.py",
        "if platform.m2me_id is None or m2me_id not in (None, platform.m2me_id):",
        "if False:",
        (("tests/integration/test_sho_service.py::test_what_does_not_hold_together_gets_nothing"),),
    ),
    (
        "T4",
        "sho/platform_checks.py",
        "            ticket.check_binding(\n",
        "            dict(\n",
        (("tests/integration/test_sho_service.py::test_what_does_not_hold_together_gets_nothing"),),
    ),
    (
        "T5",
        "dmserver/late_packages.py",
        "if order is None or order.sho_id != late.sho_id:",
        "if order is None:",
        (("tests/integration/test_dmserver_late_packages.py::test_t5_a_package_is_taken_from_its_own_operator_alone"),),
    ),
    (
        "T5",
        "dmserver/platform_validation.py",
        "audience=self._rules.server_id,",
        "audience=self._order.sho_id,",
        (("tests/integration/test_dmserver_sessions.py::test_req19_a_ticket_that_is_not_exactly_right_is_refused"),),
    ),
    (
        "T5",
        "dmserver/reception.py",
        '"SHOId": header.sho_id == order.sho_id,',
        "",
        (("tests/integration/test_dmserver_sessions.py::test_req24_a_package_the_tre_would_refuse_is_not_delivered"),),
    ),
    (
        "T5",
        "sho/handover.py",
        "body.dpf_id in client_names",
        "True",
        (("tests/integration/test_sho_service.py::test_what_does_not_hold_together_gets_nothing"),),
    ),
    (
        "T5",
        "sho/platform_checks.py",
        "audience=self._identity.sho_id,\n",
        (
            "audience=claim.ticket and __import__('json').loads(__import__('base64').urlsafe_"
            "b64decode(claim.ticket.split('.')[1] + '=='))['aud'][0],\n"
        ),
        (("tests/integration/test_sho_service.py::test_what_does_not_hold_together_gets_nothing"),),
    ),
    (
        "T5",
        "sho/platform_checks.py",
        "pva_id=self._trust.pva_id,",
        "pva_id=None,",
        (("tests/integration/test_sho_service.py::test_what_does_not_hold_together_gets_nothing"),),
    ),
    (
        "T6",
        "dmserver/platform_checks.py",
        "platform.key_id != attest.key_id",
        "True",
        (("tests/unit/test_dmserver_platform_checks.py::test_req45_platform_and_attestation_key_must_differ"),),
    ),
    (
        "T6",
        "dmserver/platform_checks.py",
        "identity=snapshot.tre_id,",
        "identity=None,",
        (("tests/unit/test_dmserver_platform_checks.py::test_req20_req46_unacceptable_platform_certificates"),),
    ),
    (
        "T9",
        "dmserver/platform_checks.py",
        'snapshot.tre_state == "ok",',
        "True,",
        (
            (
                "tests/integration/test_dmserver_sessions.py::test_req13_req14_a_device_that_does"
                "_not_fit_the_order_is_refused"
            ),
        ),
    ),
    (
        "T9",
        "dmserver/platform_checks.py",
        "        not deviations,",
        "        True,",
        (("tests/unit/test_dmserver_platform_checks.py::test_req06_an_unknown_node_is_a_deviation"),),
    ),
    (
        "T10",
        "dmserver/life_cycle.py",
        "if octets is not None and receipt is not None and is_about(receipt, order):",
        "if octets is not None and receipt is not None:",
        (("tests/integration/test_dmserver_life_cycle.py::test_exec_in_a_wrong_state_ends_the_order"),),
    ),
    (
        "T10",
        "dmserver/reception.py",
        '"TRE id": verified.tre_id == order.tre_id,',
        "",
        (("tests/integration/test_dmserver_sessions.py::test_req67_a_receipt_about_something_else_is_not_reported"),),
    ),
    (
        "T10",
        "dmserver/reception.py",
        ('"package hash": hmac.compare_digest(verified.package_hash.hex(), about.package_hash or ""),'),
        "",
        (("tests/integration/test_dmserver_sessions.py::test_req67_a_receipt_about_something_else_is_not_reported"),),
    ),
    (
        "T10",
        "dmserver/reception.py",
        '"result leaf": leaf_result is None or leaf_result == verified.result,',
        "",
        (("tests/integration/test_dmserver_sessions.py::test_req67_a_receipt_about_something_else_is_not_reported"),),
    ),
    (
        "T10",
        "dmserver/reception.py",
        '"nonce": hmac.compare_digest(verified.nonce or b"", about.nonce or b""),',
        "",
        (("tests/integration/test_dmserver_sessions.py::test_req67_a_receipt_about_something_else_is_not_reported"),),
    ),
    (
        "T10",
        "sho/report.py",
        '"success-has-a-receipt", not success',
        '"success-has-a-receipt", True',
        ("tests/integration/test_sho_service.py::test_a_forged_receipt_arms_nothing",),
    ),
    (
        "T12",
        "dmserver/bootstrap.py",
        "if bootstraps_since(connection, device_id, now - timedelta(hours=1)) >= per_hour:",
        "if False:",
        (("tests/unit/test_dmserver_bootstrap.py::test_req11_unknown_device_no_order_or_too_often"),),
    ),
    (
        "T12",
        "dmserver/callback.py",
        "if sent >= self._per_hour:",
        "if False:",
        (("tests/integration/test_dmserver_late_packages.py::test_t12_notifications_of_a_device_are_bounded"),),
    ),
    (
        "T12",
        "dmserver/reception.py",
        "0 < len(given.package) <= limit,",
        "True,",
        (("tests/integration/test_dmserver_sessions.py::test_req32_what_the_home_operator_sends_must_be_a_package"),),
    ),
    (
        "T14",
        "dmserver/platform_checks.py",
        "snapshot.sho_id in (None, expected.sho_id),",
        "True,",
        (
            (
                "tests/integration/test_dmserver_sessions.py::test_req13_req14_a_device_that_does"
                "_not_fit_the_order_is_refused"
            ),
        ),
    ),
    (
        "T14",
        "sho/handover.py",
        "operation is terms.operation,",
        "True,",
        (("tests/integration/test_sho_operations.py::test_the_same_checks_for_every_operation"),),
    ),
    (
        "T16",
        "dmserver/reception.py",
        "given.container in facts.containers and given.container in tuple(Container),",
        "True,",
        (("tests/integration/test_dmserver_sessions.py::test_req32_what_the_home_operator_sends_must_be_a_package"),),
    ),
    (
        "T16",
        "sho/negotiation.py",
        "if suite in allowed and (suite in _ELLIPTIC) is elliptic]",
        "if suite and (suite in _ELLIPTIC) is elliptic]",
        ("tests/unit/test_sho_negotiation.py::test_suites",),
    ),
    (
        "T16",
        "sho/platform_checks.py",
        "hmac.compare_digest(digest, ticket.capabilities)",
        "True",
        (("tests/integration/test_sho_service.py::test_what_does_not_hold_together_gets_nothing"),),
    ),
    (
        "T16",
        "sho/platform_checks.py",
        "ticket.mode is ValidationMode.AUTONOMOUS",
        "True",
        (("tests/integration/test_sho_service.py::test_what_does_not_hold_together_gets_nothing"),),
    ),
    (
        "T17",
        "dmserver/platform_validation.py",
        "now + margin < order.ticket_exp",
        "now < order.ticket_exp",
        (
            (
                "tests/integration/test_dmserver_late_packages.py::test_t17_a_ticket_that_ends_wi"
                "thin_the_margin_counts_as_aged"
            ),
        ),
    ),
    (
        "T17",
        "dmserver/platform_validation.py",
        "order.ticket_exp is not None and now + margin < order.ticket_exp",
        "order.ticket_exp is not None",
        (
            (
                "tests/integration/test_dmserver_late_packages.py::test_t17_a_ticket_that_ends_wi"
                "thin_the_margin_counts_as_aged"
            ),
        ),
    ),
    (
        "T17",
        "dmserver/provisioning.py",
        "if same_request and self._ticket_holds(now):",
        "if same_request:",
        (
            (
                "tests/integration/test_dmserver_late_packages.py::test_t17_an_aged_ticket_is_ren"
                "ewed_without_another_hand_over"
            ),
        ),
    ),
    (
        "T17",
        "sho/handover.py",
        '"platform-not-revoked", not revoked',
        '"platform-not-revoked", True',
        (("tests/integration/test_sho_prepared.py::test_a_revoked_platform_loses_its_object_and_gets_no_other"),),
    ),
    (
        "T3",
        "sho/auc.py",
        "sqn_after_resynchronisation(row.sqn, after)",
        "next_sqn(after)",
        ("tests/unit/test_sho_store.py::test_other_vectors_under_way_are_not_begun_anew",),
    ),
    (
        "T12",
        "sho/auc.py",
        "            except InvalidArgument as exc:\n",
        "            except ZeroDivisionError as exc:\n",
        ("tests/integration/test_sho_service.py::test_used_up_sequence_numbers_are_a_refusal",),
    ),
    (
        "T12",
        "sho/store/handovers.py",
        "new.next_sequence > last + MAX_SEQUENCE_STEP or ",
        "",
        ("tests/unit/test_sho_store.py::test_what_a_dpf_names_cannot_use_up_the_sequence_numbers",),
    ),
    (
        "T12",
        "sho/store/handovers.py",
        " or last >= MAX_SEQUENCE:",
        ":",
        ("tests/unit/test_sho_store.py::test_what_a_dpf_names_cannot_use_up_the_sequence_numbers",),
    ),
    (
        "T12",
        "sho/store/handovers.py",
        '    if values.get("revision", 0) > MAX_REVISION:\n',
        "    if False:\n",
        ("tests/unit/test_sho_store.py::test_numbers_that_are_used_up",),
    ),
    (
        "T3",
        "sho/store/handovers.py",
        '    if values["sqn_init"] > MAX_SQN:\n',
        "    if False:\n",
        ("tests/unit/test_sho_store.py::test_numbers_that_are_used_up",),
    ),
    (
        "T10",
        "sho/orders.py",
        "not isinstance(order_id, str) or not 1 <= len(order_id) <= 64",
        "not isinstance(order_id, str)",
        ("tests/unit/test_sho_orders.py::test_open_order",),
    ),
    (
        "T10",
        "sho/orders.py",
        "    if not await store.write(lambda c: repository.set_order_opened(c, own_id, order_id)):\n",
        "    if await store.write(lambda c: repository.set_order_opened(c, own_id, order_id)) is None:\n",
        ("tests/unit/test_sho_orders.py::test_open_order",),
    ),
    (
        "T10",
        "sho/store/repository.py",
        '.where(orders.c.id == id, requested).values(order_id=order_id, state="open")',
        '.where(orders.c.id == id).values(order_id=order_id, state="open")',
        ("tests/unit/test_sho_orders.py::test_an_answer_that_comes_twice_moves_no_order_back",),
    ),
    (
        "T17",
        "sho/auc.py",
        "    if row.barred_at is not None:\n",
        "    if False:\n",
        ("tests/integration/test_sho_operations.py::test_a_barred_subscription_gets_no_vectors_from_that_commit_on",),
    ),
    (
        "T17",
        "sho/store/handovers.py",
        "        if is_barred(connection, known):\n",
        "        if False:\n",
        ("tests/integration/test_sho_operations.py::test_what_was_allocated_is_held_back_when_it_is_barred",),
    ),
    (
        "T17",
        "sho/store/handovers.py",
        "    if repository.has_barred(connection, new.m2me_id, new.tre_id):\n",
        "    if False:\n",
        ("tests/integration/test_sho_operations.py::test_barring_is_apart_from_the_life_cycle_and_reports_settle",),
    ),
    (
        "T17",
        "sho/store/handovers.py",
        "if subscription.barred_at is not None and new.operation not in WITHDRAWING:",
        "if False:",
        ("tests/integration/test_sho_operations.py::test_barring_is_apart_from_the_life_cycle_and_reports_settle",),
    ),
    (
        "T17",
        "sho/store/handovers.py",
        "            table.barred_at.is_(None),\n",
        "",
        ("tests/integration/test_sho_operations.py::test_a_barred_subscription_of_nobody_is_passed_over",),
    ),
    (
        "T17",
        "sho/store/repository.py",
        "            table.barred_at.is_(None),\n",
        "",
        ("tests/integration/test_sho_operations.py::test_a_barred_subscription_is_not_given_to_anybody",),
    ),
    (
        "T17",
        "sho/jobs.py",
        'return "subscription-barred" if handovers.is_barred(connection, row) else None',
        "return None",
        ("tests/integration/test_sho_later.py::test_a_subscription_barred_meanwhile_leaves_in_no_package",),
    ),
    (
        "T10",
        "sho/store/effects.py",
        "updates.take_back(connection, vault, handover.subscription_id, after=after)",
        "updates.take_back(connection, vault, handover.subscription_id, after=before)",
        (
            "tests/integration/test_sho_constants.py::test_a_tre_that_goes_back_past_several_updates_finds_the_auc_there",
        ),
    ),
    (
        "T10",
        "sho/store/updates.py",
        "            first > after,\n",
        "",
        ("tests/integration/test_sho_constants.py::test_a_tre_goes_back_to_its_last_attach_and_the_auc_with_it",),
    ),
    (
        "T3",
        "sho/store/repository.py",
        ".where(tres.c.tre_id == tre_id).with_for_update()",
        ".where(tres.c.tre_id == tre_id)",
        ("tests/unit/test_sho_store.py::test_what_is_read_to_be_written_is_locked",),
    ),
)
