"""The demo: starts all actors on loopback and tells how one M2M device gets its network subscription."""
