"""The platform validation authority (PVA): says by a signed ticket whether a TRE can be trusted."""
