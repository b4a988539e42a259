"""Addresses as pictures that a phone reads."""

from __future__ import annotations

import segno


def picture(address: str) -> str:
    """A `data:` address of an SVG, dark on white whatever the page's colours are; empty for no address."""
    if not address:
        return ""
    code = segno.make(address, error="m", micro=False)
    return code.svg_data_uri(scale=4, dark="#000", light="#fff", svgclass=None, lineclass=None)
