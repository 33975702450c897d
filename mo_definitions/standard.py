"""Node addresses of the standard objects DevInfo, DevDetail and DMAcc (OMA-TS-DM_StdObj-V1_2 §5.3)."""

from __future__ import annotations

from mo_definitions.paths import RelativePath


class DevInfoNode(RelativePath):
    """Nodes of DevInfo, relative to its root."""

    DEV_ID = "DevId"
    MAN = "Man"
    MOD = "Mod"
    DM_V = "DmV"
    LANG = "Lang"
    EXT = "Ext"
    BEARER = "Bearer"


class DevDetailNode(RelativePath):
    """Nodes of DevDetail, relative to its root."""

    URI = "URI"
    MAX_DEPTH = "URI/MaxDepth"
    MAX_TOT_LEN = "URI/MaxTotLen"
    MAX_SEG_LEN = "URI/MaxSegLen"
    DEV_TYP = "DevTyp"
    OEM = "OEM"
    FW_V = "FwV"
    SW_V = "SwV"
    HW_V = "HwV"
    LRG_OBJ = "LrgObj"
    EXT = "Ext"
    BEARER = "Bearer"


class AccountNode(RelativePath):
    """Nodes of one DM account, relative to its node below DMAcc."""

    APP_ID = "AppID"
    SERVER_ID = "ServerID"
    NAME = "Name"
    PREF_CON_REF = "PrefConRef"
    TO_CON_REF = "ToConRef"
    APP_ADDR = "AppAddr"
    A_AUTH_PREF = "AAuthPref"
    APP_AUTH = "AppAuth"
    EXT = "Ext"


class AddressNode(RelativePath):
    """Nodes of one address, relative to its node below AppAddr."""

    ADDR = "Addr"
    ADDR_TYPE = "AddrType"
    PORT = "Port"


class CredentialNode(RelativePath):
    """Nodes of one set of credentials, relative to its node below AppAuth."""

    LEVEL = "AAuthLevel"
    TYPE = "AAuthType"
    NAME = "AAuthName"
    SECRET = "AAuthSecret"  # noqa: S105  # the name of a node, not a secret
    DATA = "AAuthData"


CLCRED = "CLCRED"
"""`AAuthLevel` of the credentials with which the server authenticates the client."""
SRVCRED = "SRVCRED"
"""`AAuthLevel` of the credentials with which the client authenticates the server."""
