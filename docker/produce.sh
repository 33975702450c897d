#!/bin/sh
# What happens before the first power-on, once: the CAs, each actor's keys in its own volume, the operators' databases,
# and the devices at their supplier: one with a provisional identity and a TRE that the PVA knows, one with neither.
set -eu
umask 077
cd /var/lib/m2m
[ -e ca/done ] && exit 0

m2m-ca demo-pki ca/pki --sho-id sho.m2m.example --dpf-id dpf.m2m.example --pva-id urn:m2m:pva:m2m.example \
  --ro-id ro.m2m.example
for actor in pva sho dpf ro; do
  mkdir -p $actor/pki
  cp -r ca/pki/$actor/. ca/pki/anchors $actor/pki/
done

make_device() { # HOME [OPTION OF manufacture…]; settings come from the environment
  home=$1
  shift
  mkdir -p "$home/pki" "$home/certificates"
  cp ca/pki/anchors/tls.pem "$home/pki/"
  python3 -c 'import secrets; print("".join(secrets.choice("0123456789") for _ in range(32)), end="")' >"$home/bootstrap.secret"
  dmclient --config /etc/m2m/m2me.toml manufacture --request "$home/request.json" "$@"
  m2m-ca issue tre ca/pki "$home/request.json" --out "$home/certificates"
  dmclient --config /etc/m2m/m2me.toml install-certificates --platform "$home/certificates/platform.crt" \
    --attest "$home/certificates/attest.crt" --chain "$home/certificates/chain.pem" --sho-anchors ca/pki/anchors/sho.pem
}
ro --config /etc/m2m/ro.toml pcid issue --out m2me/pcid.json
make_device m2me --pcid-file m2me/pcid.json
rm m2me/pcid.json
cp m2me/bootstrap.secret dpf/m2me.secret
. /opt/m2m/docker/outdated.env
make_device outdated
cp outdated/bootstrap.secret dpf/outdated.secret

pva --config /etc/m2m/pva.toml reference add --tre-type software --version 1.0
sho --config /etc/m2m/sho.toml subscription generate --count 10
dmserver --config /etc/m2m/dpf.toml devices add --m2me-id "$M2ME" --bootstrap-secret-file dpf/m2me.secret
dmserver --config /etc/m2m/dpf.toml devices add --m2me-id "$DMCLIENT_M2ME_ID" --bootstrap-secret-file dpf/outdated.secret
touch ca/done
