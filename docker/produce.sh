#!/bin/sh
# What happens before the first power-on, once: the CAs, each actor's keys in its own volume, the operators' databases,
# and the devices at their supplier: one with a TRE that the PVA knows, one with a version it does not.
set -eu
cd /var/lib/m2m
[ -e ca/done ] && exit 0

m2m-ca demo-pki ca/pki --sho-id sho.m2m.example --dpf-id dpf.m2m.example --pva-id urn:m2m:pva:m2m.example
for actor in pva sho dpf; do
  mkdir -p $actor/pki
  cp -r ca/pki/$actor/. ca/pki/anchors $actor/pki/
done

make_device() { # HOME; settings come from the environment
  mkdir -p "$1/pki" "$1/certificates"
  cp ca/pki/anchors/tls.pem "$1/pki/"
  python3 -c 'import secrets; print("".join(secrets.choice("0123456789") for _ in range(32)), end="")' >"$1/bootstrap.secret"
  chmod 600 "$1/bootstrap.secret"
  dmclient --config /etc/m2m/m2me.toml manufacture --request "$1/request.json"
  m2m-ca issue tre ca/pki "$1/request.json" --out "$1/certificates"
  dmclient --config /etc/m2m/m2me.toml install-certificates --platform "$1/certificates/platform.crt" \
    --attest "$1/certificates/attest.crt" --chain "$1/certificates/chain.pem" --sho-anchors ca/pki/anchors/sho.pem
}
make_device m2me
cp m2me/bootstrap.secret dpf/m2me.secret
. /opt/m2m/docker/outdated.env
make_device outdated
cp outdated/bootstrap.secret dpf/outdated.secret

pva --config /etc/m2m/pva.toml reference add --tre-type software --version 1.0
sho --config /etc/m2m/sho.toml subscription generate --count 10
dmserver --config /etc/m2m/dpf.toml devices add --m2me-id "$M2ME" --bootstrap-secret-file dpf/m2me.secret
dmserver --config /etc/m2m/dpf.toml devices add --m2me-id "$DMCLIENT_M2ME_ID" --bootstrap-secret-file dpf/outdated.secret
touch ca/done
