"""QR codes of addresses."""

from __future__ import annotations


def picture(address: str) -> str:
    """Return a QR code as the `data:` address of an SVG, dark on white on any page; empty without an address."""
    if not address:
        return ""
    import segno  # only pages with a code need it

    code = segno.make(address, error="m", micro=False)
    return code.svg_data_uri(scale=4, dark="#000", light="#fff", svgclass=None, lineclass=None)
