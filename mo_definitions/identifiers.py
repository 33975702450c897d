"""Identifiers of management objects and types of generic alerts.

Those of the two M2M objects are proposals after 3GPP precedents (`urn:oma:mo:ext-3gpp-ims:1.0`, TS 24.167) and not
registered with OMNA, hence version 0.1.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

M2M_OBJECT: Final = "urn:oma:mo:ext-3gpp-m2m:0.1"
M2MSIM_OBJECT: Final = "urn:oma:mo:ext-3gpp-m2msim:0.1"

DEV_INFO: Final = "urn:oma:mo:oma-dm-devinfo:1.0"
DEV_DETAIL: Final = "urn:oma:mo:oma-dm-devdetail:1.0"
DM_ACCOUNT: Final = "urn:oma:mo:oma-dm-dmacc:1.0"
DM_ACCOUNT_BEFORE: Final = "org.openmobilealliance/1.0/w7"  # identifier of the account in older examples
INBOX: Final = "urn:oma:mo:oma-dm-inbox:1.0"

ALERT_ROOT: Final = "urn:oma:at:ext-3gpp-m2msim:0.1"


class AlertType(StrEnum):
    """`Meta/Type` of the generic alerts (code 1226) that a device sends.

    The Item's Source is the node concerned: `Registration` for a request (Data: ReqId) and a renewed nonce (Data: new
    ReqId), the Exec target for a result (Data: result code), the container for an attach (Data: 1200 or a failure).
    """

    REGISTRATION_REQUEST = f"{ALERT_ROOT}:RegistrationRequest"
    ATTESTATION_READY = f"{ALERT_ROOT}:AttestationReady"
    PROVISIONING_COMPLETE = f"{ALERT_ROOT}:ProvisioningComplete"
    LIFECYCLE_COMPLETE = f"{ALERT_ROOT}:LifecycleComplete"
    NONCE_RENEWED = f"{ALERT_ROOT}:NonceRenewed"
    NETWORK_ATTACH = f"{ALERT_ROOT}:NetworkAttach"
    TAMPER_DETECTED = f"{ALERT_ROOT}:TamperDetected"
