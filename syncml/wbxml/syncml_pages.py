"""Token tables of SyncML messages: SyncML, MetInf and the DDF of embedded trees.

Sources: OMA-TS-SyncML_RepPro-V1_2 §8 (page 0), OMA-TS-SyncML_MetaInfo-V1_2 §7 (page 1), OMA-TS-DM_TND-V1_2_1 §12
(page 2); compared with the tables of libwbxml 0.11.8. SyncML has no attribute tokens.
"""

from __future__ import annotations

from typing import Final

from syncml.wbxml.code_pages import CodePages

_SYNCML: Final = {
    0x05: "Add", 0x06: "Alert", 0x07: "Archive", 0x08: "Atomic", 0x09: "Chal", 0x0A: "Cmd", 0x0B: "CmdID",
    0x0C: "CmdRef", 0x0D: "Copy", 0x0E: "Cred", 0x0F: "Data", 0x10: "Delete", 0x11: "Exec", 0x12: "Final",
    0x13: "Get", 0x14: "Item", 0x15: "Lang", 0x16: "LocName", 0x17: "LocURI", 0x18: "Map", 0x19: "MapItem",
    0x1A: "Meta", 0x1B: "MsgID", 0x1C: "MsgRef", 0x1D: "NoResp", 0x1E: "NoResults", 0x1F: "Put", 0x20: "Replace",
    0x21: "RespURI", 0x22: "Results", 0x23: "Search", 0x24: "Sequence", 0x25: "SessionID", 0x26: "SftDel",
    0x27: "Source", 0x28: "SourceRef", 0x29: "Status", 0x2A: "Sync", 0x2B: "SyncBody", 0x2C: "SyncHdr",
    0x2D: "SyncML", 0x2E: "Target", 0x2F: "TargetRef", 0x31: "VerDTD", 0x32: "VerProto", 0x33: "NumberOfChanges",
    0x34: "MoreData", 0x35: "Field", 0x36: "Filter", 0x37: "Record", 0x38: "FilterType", 0x39: "SourceParent",
    0x3A: "TargetParent", 0x3B: "Move", 0x3C: "Correlator",
}  # fmt: skip  # 0x30 is reserved

_METINF: Final = {
    0x05: "Anchor", 0x06: "EMI", 0x07: "Format", 0x08: "FreeID", 0x09: "FreeMem", 0x0A: "Last", 0x0B: "Mark",
    0x0C: "MaxMsgSize", 0x0D: "Mem", 0x0E: "MetInf", 0x0F: "Next", 0x10: "NextNonce", 0x11: "SharedMem",
    0x12: "Size", 0x13: "Type", 0x14: "Version", 0x15: "MaxObjSize", 0x16: "FieldLevel",
}  # fmt: skip

_DDF: Final = {
    0x05: "AccessType", 0x06: "ACL", 0x07: "Add", 0x08: "b64", 0x09: "bin", 0x0A: "bool", 0x0B: "chr",
    0x0C: "CaseSense", 0x0D: "CIS", 0x0E: "Copy", 0x0F: "CS", 0x10: "date", 0x11: "DDFName", 0x12: "DefaultValue",
    0x13: "Delete", 0x14: "Description", 0x15: "DFFormat", 0x16: "DFProperties", 0x17: "DFTitle", 0x18: "DFType",
    0x19: "Dynamic", 0x1A: "Exec", 0x1B: "float", 0x1C: "Format", 0x1D: "Get", 0x1E: "int", 0x1F: "Man",
    0x20: "MgmtTree", 0x21: "MIME", 0x22: "Mod", 0x23: "Name", 0x24: "Node", 0x25: "node", 0x26: "NodeName",
    0x27: "null", 0x28: "Occurrence", 0x29: "One", 0x2A: "OneOrMore", 0x2B: "OneOrN", 0x2C: "Path",
    0x2D: "Permanent", 0x2E: "Replace", 0x2F: "RTProperties", 0x30: "Scope", 0x31: "Size", 0x32: "time",
    0x33: "Title", 0x34: "TStamp", 0x35: "Type", 0x36: "Value", 0x37: "VerDTD", 0x38: "VerNo", 0x39: "xml",
    0x3A: "ZeroOrMore", 0x3B: "ZeroOrN", 0x3C: "ZeroOrOne",
}  # fmt: skip

SYNCML_1_2: Final = CodePages(
    name="SyncML 1.2",
    root="SyncML",
    public_id=0x1201,
    formal_id="-//SYNCML//DTD SyncML 1.2//EN",
    tags={0: _SYNCML, 1: _METINF, 2: _DDF},
    older_public_ids=frozenset({0x0FD1, 0x0FD3}),  # SyncML 1.0 and 1.1: VerDTD in the document says so as well
    older_formal_ids=frozenset({"-//SYNCML//DTD SyncML 1.0//EN", "-//SYNCML//DTD SyncML 1.1//EN"}),
)

TNDS_1_2: Final = CodePages(
    name="DM DDF 1.2",
    root="MgmtTree",
    public_id=None,  # none is registered: the formal identifier goes into the string table
    formal_id="-//OMA//DTD-DM-DDF 1.2//EN",
    tags={2: _DDF},
)
