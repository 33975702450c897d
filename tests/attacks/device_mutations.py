"""Checks of the device: TRE, bootstrap, evidence: what is there, what stands there without, who misses it.

Rows for `tests.attacks.mutations`: threat, file, text of the check (once in the file), text without the check, and the
tests of which at least one must fail then.
"""

from __future__ import annotations

from typing import Final

ROWS: Final[tuple[tuple[str, str, str, str, tuple[str, ...]], ...]] = (
    (
        "T3",
        "dmclient/bootstrap_receiver.py",
        "if held and entry in known and known[-1] != entry:",
        "if False:",
        (("tests/unit/test_dmclient_bootstrap.py::test_replay_of_a_replaced_profile_is_refused"),),
    ),
    (
        "T3",
        "dmclient/tre/installation.py",
        "if revision <= mcim.revision:",
        "if False:",
        ("tests/unit/test_tre_life_cycle.py::test_refused_update",),
    ),
    (
        "T3",
        "dmclient/tre/installation.py",
        "if changed.keys == mcim.keys and max(changed.usim.seq) < max(mcim.usim.seq):",
        "if False:",
        ("tests/unit/test_tre_life_cycle.py::test_refused_update",),
    ),
    (
        "T3",
        "dmclient/tre/memory.py",
        "elif memory.state.generation != value:",
        "elif False:",
        ("tests/unit/test_tre_memory.py::test_a_store_put_back_is_tampering",),
    ),
    (
        "T3",
        "dmclient/tre/memory.py",
        "if memory.state.generation == value + 1:",
        "if memory.state.generation > value:",
        ("tests/unit/test_tre_memory.py::test_a_counter_of_another_time_is_tampering",),
    ),
    (
        "T3",
        "dmclient/tre/memory.py",
        "if self._counter.read() != self.state.generation:",
        "if False:",
        ("tests/unit/test_tre_memory.py::test_two_processes_do_not_write_over_each_other",),
    ),
    (
        "T3",
        "dmclient/tre/reception.py",
        "after.with_sequence(header.sho_id, header.sequence)",
        "after",
        ("tests/unit/test_tre_software.py::test_installs_a_good_package",),
    ),
    (
        "T3",
        "dmclient/tre/reception.py",
        "registration=after.registration.closed(RegistrationState.PROVISIONED),",
        "registration=after.registration,",
        ("tests/unit/test_tre_software.py::test_installs_a_good_package",),
    ),
    (
        "T5",
        "dmclient/bootstrap_receiver.py",
        "            kind = self._authenticated(push)\n",
        "            kind = Sec.NETWPIN\n",
        ("tests/unit/test_dmclient_bootstrap.py::test_what_is_not_accepted_leaves_no_trace",),
    ),
    (
        "T5",
        "syncml/bootstrap/__init__.py",
        "if not secrets.verify(sec, push.body, push.mac):",
        "if False:",
        ("tests/unit/test_bootstrap_push.py::test_a_typed_number_opens_its_push",),
    ),
    (
        "T5",
        "syncml/bootstrap/__init__.py",
        "if push.mac is None and sec is not Sec.USERPINMAC:",
        "if False:",
        ("tests/unit/test_bootstrap_push.py::test_refused",),
    ),
    (
        "T6",
        "mcim/tpm_quote.py",
        "    verify_raw(public_key, signature, octets)\n",
        "",
        ("tests/unit/test_tpm_quote.py::test_signature_and_qualifying_data_count",),
    ),
    (
        "T6",
        "mcim/tpm_quote.py",
        "if not hmac.compare_digest(quote.qualifying_data, qualifying_data):",
        "if False:",
        ("tests/unit/test_tpm_quote.py::test_signature_and_qualifying_data_count",),
    ),
    (
        "T6",
        "mcim/tpm_quote.py",
        'reader.expect(4, int.from_bytes(GENERATED, "big"), "magic")',
        "reader.number(4)",
        ("tests/unit/test_tpm_quote.py::test_anything_else_is_refused",),
    ),
    (
        "T9",
        "dmclient/tre/provisioning.py",
        '_require(state.condition == "ok"',
        "_require(True",
        ("tests/unit/test_tre_software.py::test_a_tre_out_of_order_refuses",),
    ),
    (
        "T9",
        "dmclient/tre/provisioning.py",
        "    _require(agree, ",
        "    _require(True, ",
        ("tests/unit/test_tre_software.py::test_hints_only_ever_refuse",),
    ),
    (
        "T9",
        "dmclient/tre/provisioning.py",
        "_require(hints.req_id in (None, req_id)",
        "_require(True",
        ("tests/unit/test_tre_software.py::test_hints_only_ever_refuse",),
    ),
    (
        "T9",
        "dmclient/tre/provisioning.py",
        "_require(fits, ",
        "_require(True, ",
        ("tests/unit/test_tre_life_cycle.py::test_the_exec_target_is_what_was_signed",),
    ),
    (
        "T9",
        "dmclient/tre/reception.py",
        "if mcim is not None and McimPolicy.SIGNED_LIFECYCLE in mcim.policy:",
        "if False:",
        ("tests/unit/test_tre_life_cycle.py::test_without_a_signature_the_policy_decides",),
    ),
    (
        "T9",
        "dmclient/tre/reception.py",
        '        if self._state.condition != "ok":\n            raise',
        "        if False:\n            raise",
        ("tests/unit/test_tre_software.py::test_a_tre_out_of_order_refuses",),
    ),
    (
        "T11",
        "dmclient/tre/reception.py",
        (
            '            with action.checks.check("device-token", "REQ-61"):\n                '
            "self._check_token(examined.content.auth_token)\n"
        ),
        "",
        ("tests/attacks/test_device_token.py::test_near_misses",),
    ),
    (
        "T12",
        "dmclient/bootstrap_receiver.py",
        "if self._memory.failures >= self._max_failures:",
        "if False:",
        ("tests/unit/test_dmclient_bootstrap.py::test_lock_out_after_wrong_macs",),
    ),
    (
        "T14",
        "dmclient/tre/installation.py",
        "if McimPolicy.RELEASE_REQUIRED in old.policy and old.sho_id != content.sho_id:",
        "if False:",
        ("tests/unit/test_tre_life_cycle.py::test_release_token",),
    ),
    (
        "T14",
        "dmclient/tre/installation.py",
        "    verify_release(\n",
        "    dict(\n",
        ("tests/unit/test_tre_life_cycle.py::test_release_token",),
    ),
    (
        "T14",
        "dmclient/tre/installation.py",
        "if there.sho_id != content.sho_id:",
        "if False:",
        ("tests/unit/test_tre_life_cycle.py::test_another_mcim_under_the_same_id",),
    ),
    (
        "T14",
        "dmclient/tre/life_cycle.py",
        "if bound and mcim.sho_id not in (before.sho_id, before.released_to):",
        "if False:",
        (("tests/unit/test_tre_life_cycle.py::test_a_plain_install_is_no_way_around_the_release"),),
    ),
    (
        "T14",
        "dmclient/tre/life_cycle.py",
        "if by not in (None, mcim.sho_id) and mcim.state is ContainerState.ACTIVATED:",
        "if False:",
        (("tests/unit/test_tre_life_cycle.py::test_a_release_is_for_deleting_alone_and_not_while_it_is_in_use"),),
    ),
    (
        "T14",
        "dmclient/tre/provisioning.py",
        "return header.sho_id if released else known.sho_id",
        "return header.sho_id",
        ("tests/unit/test_tre_life_cycle.py::test_a_command_passes_the_checks_of_a_package",),
    ),
)
