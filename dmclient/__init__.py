"""The M2ME: an M2M device with an OMA DM 1.2 client, a management tree and a trusted environment (TRE)."""
