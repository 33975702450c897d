"""MCIM: the downloadable network-access credential of 3GPP TR 33.812, its packing, protection and use.

No I/O: keys, `now` and random octets are arguments. Modules are cut by who may know what: a DPF uses
`certificates`, `package_header`, `ticket` and `receipt`; everything that could open an MCIM lives elsewhere
(an import contract in `pyproject.toml` keeps it so, REQ-28).
"""
