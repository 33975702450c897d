"""What becomes of a TRE in use: new keys (REQ-21), and what its supplier commands (REQ-44, REQ-61)."""

from __future__ import annotations

import json
from typing import Final

from m2m_demo.course import note_processes, seen_by_both, set_up
from m2m_demo.life import Life, require
from m2m_demo.play import Play, Show
from m2m_demo.provisioning_scenarios import asked
from m2m_demo.stage import M2ME_ID, TOKEN_FILE, Stage
from mcim.vocabulary import ResultCode

SUPPLIER_ID: Final = "urn:m2m:supplier:m2m.example"
TRIES: Final = 5  # with the device token, before the TRE locks it (REQ-61)


class Supplier:
    """The equipment supplier, who may still tell a TRE something after it was sold."""

    def __init__(self, life: Life) -> None:
        self.life = life
        self.stage = life.stage
        self.home = life.stage.world.root / "supplier"
        self._counter = 0
        self.stage.authority(
            "issue", "supplier", str(self.stage.world.pki), "--identity", SUPPLIER_ID, "--out", str(self.home)
        )

    def commands(self, *terms: str) -> None:
        """One command, signed, carried to the device and obeyed; given once more, it is refused."""
        self._counter += 1
        file = self.home / f"command-{self._counter}"
        tre = str(self.stage.device_info()["treId"])
        self.stage.authority(
            "supplier-command", str(self.home), "--tre-id", tre, "--counter", str(self._counter),
            "--out", str(file), *terms,
        )  # fmt: skip
        for code, passed in ((ResultCode.SUCCESS, True), (ResultCode.REPLAY, False)):
            said = self.life.device_command("tre", "supplier-command", str(file), refused=not passed)
            require(said["result"] == code, f"the TRE answered {said['result']} to its supplier's command")
            detail = f"{int(code)} {' '.join(terms[:1])}" if passed else f"{int(code)}: the same once more"
            self.life.show.saw("M2ME", "supplier-command", passed=passed, req=("REQ-44",), detail=detail)


def new_keys(stage: Stage, show: Show) -> str:
    """A TRE changes its keys: certified by old and new ones, MCIMs stay, and what was made for the old ones is void."""
    stage.extra["m2me"] = {"keep_packages": True}
    life = Life(stage, show)
    life.begin()
    life.rest()
    old = _platform_key(life)
    show.say("Before: the package of the MCIM that is there, once more. Its nonce is used up:")
    _old_package(life, "registration-nonce")
    with show.part("new-keys", "New keys, their certificates, and the change"):
        certificates = stage.world.root / "new-certificates"
        request = stage.world.root / "new-keys.json"
        stage.supervisor.command("rekey", stage.world.command("m2me", "tre", "rekey", "--request", str(request)))
        require(_platform_key(life) == old, "the new keys are in use before they are certified")
        issue = ("issue", "tre", str(stage.world.pki), str(request), "--out", str(certificates), "--json")
        said = json.loads(stage.authority(*issue))
        require(len(said["revoked"]) == 2, f"the manufacturer's CA said: {said}")
        show.saw("MANUFACTURER", "proved-by-old-and-new-key", passed=True, req=("REQ-21",), detail="2 superseded")
        stage.supervisor.command(
            "complete-rekey", stage.world.command("m2me", "tre", "complete-rekey", *stage.certificates_in(certificates))
        )
    new = _platform_key(life)
    require(new != old, "the keys are the old ones")
    show.saw("M2ME", "new-keys-in-use", passed=True, req=("REQ-21",), detail=f"PK_D {old} → {new}")
    show.say("After: the same package is for a key that is gone, whatever its nonce:")
    _old_package(life, "recipient")
    require(life.mcims() == {life.mcim: "activated"}, "the device's MCIM did not survive the change of keys")
    life.attach()
    show.say("The next package is made for the new key:")
    stock = life.write_keys("second.csv")
    update = stage.world.command("sho", "subscription", "update", life.mcim, "--file", str(stock))
    stage.supervisor.command("update", update)
    life.listen()
    life.command("update")
    packages = asked(stage, "sho", "package", "list", "--json")
    shown = [asked(stage, "sho", "package", "show", str(each["id"]), "--json") for each in packages]
    made_for = [each["platformKeyId"] for each in shown]
    require(made_for == [new, old], f"the packages were made for the keys {made_for}")
    life.rest()
    life.attach()
    return "new keys certified by the old ones; the MCIM stayed, the old package is refused, the new one opens"


def other_roots(stage: Stage, show: Show) -> str:
    """A TRE that trusts other home operators than this one, until its supplier tells it of their root."""
    elsewhere = stage.world.root / "elsewhere"
    stage.authority("init", str(elsewhere))
    stage.sho_roots = elsewhere / "anchors" / "sho.pem"
    life = _waiting(stage, show)
    order = stage.order(life.order("install", until="REFUSED", reach=stage.bootstrap))
    require(not life.mcims(), "an MCIM was installed all the same")
    life.refusal("SHO", "tre-trusts-our-root")
    life.rest()
    show.say(f"The order ended: {order['detail']}. The supplier gives the TRE the root of this operator:")
    Supplier(life).commands("--sho-anchors", str(stage.world.anchors("sho")))
    life.listen()
    life.order("install", reach=stage.notify)
    seen_by_both(stage, show)
    return "refused under other roots; provisioned and attached after the supplier's command"


def locked_token(stage: Stage, show: Show) -> str:
    """A home operator has a wrong device token; the TRE locks it after five tries, and its supplier unlocks it."""
    stage.extra["m2me"] = {"tre": {"device_token_file": stage.world.home("m2me") / TOKEN_FILE}}
    life = _waiting(stage, show)
    right, wrong = stage.world.home("sho") / TOKEN_FILE, stage.world.root / "wrong.token"
    wrong.write_bytes(b"misread label")
    _give_token(stage, wrong)
    for number in range(1, TRIES + 1):
        show.say(f"Try {number} of {TRIES}:")
        life.order("install", until="REFUSED", reach=stage.bootstrap if number == 1 else stage.notify)
        life.refusal("M2ME", "device-token")
    show.say("The right token comes too late:")
    _give_token(stage, right)
    result = stage.order(life.order("install", until="REFUSED", reach=stage.notify))["result"]
    require(result == ResultCode.TOKEN_LOCKED, f"the order's result is {result}")
    require(not life.mcims(), "an MCIM was installed all the same")
    life.rest()
    Supplier(life).commands("--unlock-token")
    life.listen()
    life.order("install", reach=stage.notify)
    require(life.passed("M2ME", "device-token"), "the TRE did not find its token in the package")
    seen_by_both(stage, show)
    return "locked after five wrong tokens, unlocked by the supplier's command; provisioned and attached"


def _waiting(stage: Stage, show: Show) -> Life:
    """A device that has nothing yet and waits for calls; all its partners run."""
    set_up(stage, show)
    life = Life(stage, show)
    with show.part("start", "Starting PVA, SHO, DPF and M2ME"):
        stage.start_servers()
        life.listen()
    note_processes(stage, show)
    return life


def _give_token(stage: Stage, file: object) -> None:
    give = stage.world.command("sho", "token", "set", "--m2me-id", M2ME_ID, "--file", str(file))
    stage.supervisor.command("token-set", give)


def _platform_key(life: Life) -> str:
    """Key id of the PK_D in use."""
    return str(life.device_command("tre", "info")["platformKeyId"])


def _old_package(life: Life, check: str) -> None:
    """The first package is given to the TRE, which must refuse it by that check."""
    said = life.device_command("replay", refused=True)
    life.show.saw("M2ME", said["check"], passed=False, req=said["requirements"], detail=said["detail"])
    life.refusal("M2ME", check)


TRE_SCENARIOS: Final = (
    Play(
        name="new-keys",
        title="The TRE changes its keys: the MCIM stays, a package for the old key opens no more.",
        perform=new_keys,
    ),
    Play(
        name="other-roots",
        title="The TRE does not know this operator's root, until its supplier commands it to.",
        perform=other_roots,
    ),
    Play(
        name="locked-token",
        title="Five wrong device tokens lock the TRE; its supplier unlocks it.",
        perform=locked_token,
    ),
)
