"""Settings of the device: TOML, then the environment (prefix `DMCLIENT_`)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, Self

from pydantic import Base64Bytes, Field, model_validator
from pydantic_settings import SettingsConfigDict

from actor_runtime.config import ActorSettings, ListenAddress, Section
from actor_runtime.errors import ConfigError
from dmclient.called_sessions import RetryPolicy
from dmclient.device import DeviceProfile
from dmclient.management_session import SessionSettings
from dmclient.objects.device import DeviceFacts
from dmclient.objects.m2m import M2MFacts
from mcim.vocabulary import ValidationMode
from syncml.codec import Encoding


class DeviceSection(Section):
    """Table `[device]`: what DevInfo and DevDetail show."""

    manufacturer: str = "Example"
    model: str = "M2ME simulator"
    language: str = "en"
    device_type: str = "m2m"
    oem: str = "Example"
    firmware_version: str = "1.0"
    software_version: str = "1.0"
    hardware_version: str = "1.0"


class Pkcs11Section(Section):
    """Table `[tre.pkcs11]`, for `tre.backend` pkcs11."""

    module: Path | None = None  # the token's library
    token_label: str = ""
    pin_file: Path | None = None  # one line, the user's PIN
    label_prefix: str = Field(default="m2m-tre", pattern=r"^[!-~]{1,32}$")  # of the objects made in the token


class TpmSection(Section):
    """Table `[tre.tpm]`, for `tre.backend` tpm."""

    tcti: str = Field(default="device:/dev/tpmrm0", min_length=1)  # as TPM2TOOLS_TCTI
    counter_index: int = Field(default=0x01804D32, ge=0x01800000, le=0x01BFFFC0)  # an NV index of the owner


class TreSection(Section):
    """Table `[tre]`: what `manufacture` makes the TRE with. Afterwards only `backend` and its own table matter."""

    tre_id: str = ""  # a URN; empty: made from m2me_id
    backend: Literal["software", "pkcs11", "tpm"] = "software"  # where its keys live
    type: Literal["", "software", "uicc", "java", "stip", "native", "pkcs11", "tpm"] = ""  # kind; empty: the backend
    key_type: Literal["rsa", "ec"] = "rsa"  # of PK_D
    version: str = "1.0"
    vendor: str = "m2m-dm"
    max_mcim: int = Field(default=4, ge=1, le=16)
    legacy_suite: bool = False  # accept MCIM-LEGACY-1, the form of S3-090792; RSA only
    legacy_container: bool = False  # take xml-mgf1p (OAEP with SHA-1) although the keys can do better; RSA only
    device_token_file: Path | None = None  # then every package must bring this token
    pkcs11: Pkcs11Section = Pkcs11Section()
    tpm: TpmSection = TpmSection()

    @property
    def effective_type(self) -> str:
        """Kind of TRE that `manufacture` makes."""
        return self.type or self.backend


class FurtherTreSection(TreSection):
    """Table `[[more_tres]]`: a further TRE of the device (REQ-64)."""

    tre_id: str = Field(min_length=1)  # a URN
    directory: Path  # of its store, and of nothing else


@dataclass(frozen=True, slots=True, kw_only=True)
class TrePlace:
    """A TRE as the settings describe it."""

    tre_id: str
    directory: Path
    section: TreSection


class BootstrapSection(Section):
    """Table `[bootstrap]`: where and how long a bootstrap is waited for."""

    listen: ListenAddress = ListenAddress()  # UDP, of all WAP pushes; 2948 is the registered port
    wait_s: float = Field(default=300.0, gt=0)
    max_failures: int = Field(default=3, ge=1)  # wrong MACs before the lock-out
    lockout_s: float = Field(default=300.0, ge=0)
    imsi_file: Path | None = None  # one line; opens documents under NETWPIN, USERNETWPIN and NETWORKID
    imsi_text: bool = False  # CP: take keys made of the IMSI's digits as text, too
    smart_card_file: Path | None = None  # CP document that a card brings, read at start; no such file: no card
    typed_number_file: Path | None = None  # one line; what a user would type for USERPINMAC


class VisitedNetwork(Section):
    """Table `[[initial_access.others]]`: a further visited network."""

    icf_url: str = Field(min_length=1)
    vno: str = Field(default="", pattern=r"^([0-9]{5,6})?$")


class InitialAccessSection(Section):
    """Table `[initial_access]`: the first attach, with the TRE's provisional identity (PCID)."""

    icf_url: str | None = None  # network listener of the registration operator; None: the device has connectivity
    vno: str = Field(default="", pattern=r"^([0-9]{5,6})?$")  # visited network, MCC and MNC
    others: tuple[VisitedNetwork, ...] = ()  # tried after it
    drf_url: str | None = None  # None: what the ICF says, or where the device attached
    push: str = Field(default="", pattern=r"^(udp:[^ ]+:[0-9]{1,5})?$")  # empty: whence we call, port of the listener

    @property
    def networks(self) -> tuple[VisitedNetwork, ...]:
        """All networks in the order in which they are tried; none: no initial access."""
        if self.icf_url is None:
            return ()
        return (VisitedNetwork(icf_url=self.icf_url, vno=self.vno), *self.others)


class PushSection(Section):
    """Table `[push]`: notifications, and the listener for pushes over HTTP."""

    http: ListenAddress | None = None  # None: no listener
    resync: bool = True  # try the special nonce 0x00000000 on notifications whose digest is wrong
    user_interaction: Literal["accept", "refuse"] = "accept"  # when a server wants the user asked and nobody can be
    ask_wait_s: float = Field(default=60.0, gt=0)  # for an answer of the user


class SessionSection(Section):
    """Table `[session]`: how the device speaks DM."""

    max_msg_size: int = Field(default=4096, ge=2048, le=1048576)  # octets; a package comes in chunks then
    max_obj_size: int = Field(default=524288, ge=4096, le=8388608)  # octets
    encoding: Literal["xml", "wbxml"] = "xml"  # of our messages; a server answers in kind
    timeout_s: float = Field(default=30.0, gt=0)  # of one HTTP exchange
    allow_plain_http: bool = False  # interoperability tests only; credentials then travel unprotected


class AccountSection(Section):
    """Table `[[account]]`: a DM account of a device that had no bootstrap; once it is in the tree, the tree counts."""

    server_id: str = Field(min_length=1)
    url: str = Field(min_length=1)
    client_auth: Literal["basic", "md5", "mac"] = "md5"  # what we prove ourselves with
    client_name: str = ""
    client_secret_file: Path  # one line
    client_nonce: Base64Bytes = b""  # the first one, Base64
    server_auth: Literal["none", "basic", "md5", "mac"] = "md5"  # what the server proves itself with; none: TLS alone
    server_name: str = ""  # empty: server_id
    server_secret_file: Path | None = None
    server_nonce: Base64Bytes = b""


class RetrySection(Section):
    """Table `[retry]`: bounds of patience."""

    attempts: int = Field(default=5, ge=1)
    polls: int = Field(default=5, ge=1)
    attach_attempts: int = Field(default=3, ge=1)
    attach_decision_s: float = Field(default=300.0, gt=0)  # then a new MCIM has failed and the one before comes back
    first_delay_s: float = Field(default=1.0, ge=0)
    max_delay_s: float = Field(default=60.0, ge=0)


class ClientSettings(ActorSettings):
    """All settings of `dmclient`."""

    model_config = SettingsConfigDict(env_prefix="DMCLIENT_")

    m2me_id: str = Field(pattern=r"^[!-~]{3,255}$")  # a URN; also DevInfo/DevId and the name in the certificates
    state_dir: Path  # device.state and the TRE's store
    seal_key_file: Path  # `manufacture` makes it when it is not there
    bootstrap_secret_file: Path | None = None  # the supplier's secret (PIN), one line
    tls_roots: Path | None = None  # PEM: the only roots that servers are trusted by
    tls_server_name: str | None = None  # name in the DPF's certificate when it is not the host of its address
    network_url: str | None = None  # base URL of the home network's access listener
    networks: dict[str, str] = Field(default_factory=dict)  # SHO id → URL; those not named: network_url
    supplier: str = ""  # M2MMobj/M2MES
    sho_id: str | None = None  # the subscriber's choice of operator
    pcid: str = Field(default="", pattern=r"^([0-9]{6,15})?$")
    pcid_expiry: datetime | None = None  # with time zone
    drop_pcid_after_attach: bool = True
    validation_mode: ValidationMode = ValidationMode.SEMI_AUTONOMOUS
    scratch_node: str = Field(default="", pattern=r"^[A-Za-z0-9_-]{0,32}$")  # ./<name> where servers may try things
    keep_packages: bool = False  # for tests: `tamper` and `replay` work, and the last package stays in state_dir
    trace_octets: bool = False  # for tests: answers that are no message stand in the trace file, with what they hold
    behaviour_file: Path | None = None  # rules for single commands and nodes, for testers
    ddf_files: tuple[Path, ...] = ()  # descriptions of further objects that the device is to have
    account: tuple[AccountSection, ...] = ()  # for `session`
    device: DeviceSection = DeviceSection()
    tre: TreSection = TreSection()
    more_tres: tuple[FurtherTreSection, ...] = ()  # beside the one of `[tre]`
    initial_access: InitialAccessSection = InitialAccessSection()
    bootstrap: BootstrapSection = BootstrapSection()
    push: PushSection = PushSection()
    session: SessionSection = SessionSection()
    retry: RetrySection = RetrySection()

    @model_validator(mode="after")
    def _tres_apart(self) -> Self:
        if len({each.tre_id for each in self.tres}) <= len(self.more_tres):
            raise ValueError("more_tres: two TREs have the same tre_id")
        if len({each.directory.resolve() for each in self.tres}) <= len(self.more_tres):
            raise ValueError("more_tres: two TREs have the same directory")
        return self

    @property
    def tres(self) -> tuple[TrePlace, ...]:
        """All TREs of the device; the first registers."""
        return (
            TrePlace(tre_id=self.effective_tre_id, directory=self.tre_dir, section=self.tre),
            *(TrePlace(tre_id=each.tre_id, directory=each.directory, section=each) for each in self.more_tres),
        )

    def tre_named(self, tre_id: str | None) -> TrePlace:
        """The TRE of that identity; None: the first.

        Raises:
            ConfigError: there is none.
        """
        for each in self.tres:
            if tre_id in (None, each.tre_id):
                return each
        raise ConfigError(f"there is no TRE {tre_id}", hint=f"one of {', '.join(each.tre_id for each in self.tres)}")

    def profile(self) -> DeviceProfile:
        """The device these settings describe."""
        return DeviceProfile(
            facts=self.device_facts(),
            m2m=M2MFacts(
                supplier=self.supplier, pcid=self.pcid, pcid_expiry=self.pcid_expiry, mode=self.validation_mode
            ),
            sho_id=self.sho_id,
            drop_pcid_after_attach=self.drop_pcid_after_attach,
            keep_package=self.kept_package_file if self.keep_packages else None,
        )

    def session_settings(self) -> SessionSettings:
        """Sizes and encoding for the session engine."""
        return SessionSettings(
            max_msg_size=self.session.max_msg_size,
            max_obj_size=self.session.max_obj_size,
            encoding=Encoding[self.session.encoding.upper()],
            trace_octets=self.trace_octets,
        )

    def retry_policy(self) -> RetryPolicy:
        """Bounds of the agent."""
        return RetryPolicy(**self.retry.model_dump())

    @property
    def tre_dir(self) -> Path:
        """Directory of the first TRE's store."""
        return self.state_dir / "tre"

    @property
    def state_file(self) -> Path:
        """The device's own memory."""
        return self.state_dir / "device.state"

    @property
    def kept_package_file(self) -> Path:
        """The last package, when it is kept."""
        return self.state_dir / "last-package"

    @property
    def dm_state_file(self) -> Path:
        """Memory of the plain DM device that `session` runs."""
        return self.state_dir / "dm-device.state"

    def device_facts(self) -> DeviceFacts:
        """What DevInfo and DevDetail show."""
        return DeviceFacts(device_id=self.m2me_id, **self.device.model_dump())

    @property
    def effective_tre_id(self) -> str:
        """Identity of the first TRE for `manufacture`."""
        return self.tre.tre_id or f"urn:m2m:tre:{self.m2me_id.removeprefix('urn:')}"
