"""Exit status 0 when GET URL answers 200. Usage: healthcheck.py URL PKI_DIRECTORY (of the actor that asks)."""

import ssl
import sys
import urllib.request
from pathlib import Path

url, pki = sys.argv[1], Path(sys.argv[2])
context = ssl.create_default_context(cafile=str(pki / "anchors/tls.pem"))
context.load_cert_chain(pki / "tls.crt", pki / "tls.key")
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
with opener.open(url, timeout=3) as answer:
    sys.exit(answer.status != 200)
