#!/bin/sh
# The operators' part: the SHO opens an order at the DPF, the DPF sends the device its bootstrap. M2ME_ID HOST [PORT]
set -eu
sho --config /etc/m2m/sho.toml order open --m2me-id "$1" --dpf https://dpf:9443
dmserver --config /etc/m2m/dpf.toml bootstrap "$1" --udp "$2:${3:-2948}"
