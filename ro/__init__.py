"""The registration operator (RO) without its DPF: provisional identities, first attach, discovery and registration.

CCIF, ICF and DRF of TR 33.812 §5.1.3.4. The download and provisioning function of the same operator is `dmserver`.
"""
