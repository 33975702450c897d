"""Management objects as DDF 1.2 files, a loader that validates them, and the check of a live tree against them."""

from __future__ import annotations

from mo_definitions.check import Deviation, DeviationKind, NodeFacts, SeenNode, check_tree
from mo_definitions.ddf import WILDCARD, Ddf, DdfError, DdfNode, Occurrence, load, parse_ddf, shipped
from mo_definitions.identifiers import (
    ALERT_ROOT,
    DEV_DETAIL,
    DEV_INFO,
    DM_ACCOUNT,
    DM_ACCOUNT_BEFORE,
    INBOX,
    M2M_OBJECT,
    M2MSIM_OBJECT,
    AlertType,
)
from mo_definitions.vendor_ddf import parse_ddfs, read_ddf_file

__all__ = [
    "ALERT_ROOT",
    "DEV_DETAIL",
    "DEV_INFO",
    "DM_ACCOUNT",
    "DM_ACCOUNT_BEFORE",
    "INBOX",
    "M2MSIM_OBJECT",
    "M2M_OBJECT",
    "WILDCARD",
    "AlertType",
    "Ddf",
    "DdfError",
    "DdfNode",
    "Deviation",
    "DeviationKind",
    "NodeFacts",
    "Occurrence",
    "SeenNode",
    "check_tree",
    "load",
    "parse_ddf",
    "parse_ddfs",
    "read_ddf_file",
    "shipped",
]
