"""OMA Device Management 1.2 on SyncML: wire protocol and session engine for both roles, without any I/O.

Nothing in here opens a socket, reads a file or looks at a clock: `now` and random octets are arguments.
"""
