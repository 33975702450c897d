"""The pinned pair of lxml and xmlsec really fits together here."""

from __future__ import annotations


def test_lxml_and_xmlsec_share_one_libxml2() -> None:
    import xmlsec
    from lxml import etree

    assert xmlsec.get_libxml_version() == etree.LIBXML_VERSION
