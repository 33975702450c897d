"""The certification authority tool: roots, operator and manufacturer CAs, and one profile for each role."""
