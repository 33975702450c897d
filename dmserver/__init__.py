"""The DPF: MCIM download and provisioning function of 3GPP TR 33.812, an OMA DM 1.2 server."""
