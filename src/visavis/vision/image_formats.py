"""What a file that is no picture we read is, and what to do about it."""

from __future__ import annotations

from visavis.errors import DataError


def damaged(name: str, error: BaseException) -> DataError:
    """What a decoder raised, in one line: OSError, SyntaxError, struct.error, IndexError, ValueError ..."""
    said = " ".join(str(error).split())
    return DataError(f"{name}: damaged or truncated picture ({error.__class__.__name__}: {said[:200]})")


def what_it_is(data: bytes) -> str:
    """A line that names unread data by what they are."""
    brand = data[8:12] if data[4:8] == b"ftyp" else b""
    if brand or data[:4] in (b"\x1aE\xdf\xa3", b"OggS") or (data[:4] == b"RIFF" and data[8:12] == b"AVI "):
        return "a video, not a picture; take a frame of it"
    for start, kind in _KNOWN:
        if data.startswith(start):
            return f"{kind}, which is not read; save it as JPEG or PNG"
    if data[:1024].lstrip()[:5].lower() in (b"<svg ", b"<?xml", b"<html", b"<!doc"):
        return f"expected a JPEG, PNG or other picture, got text: {data[:40].decode('latin-1').strip()!r}"
    head = data[:8].hex(" ")
    return (
        f"expected a JPEG, PNG, BMP, WebP, PPM, TIFF, AVIF, HEIC or GIF picture, got {len(data)} bytes starting {head}"
    )


_KNOWN = (
    (b"%PDF", "a PDF"),
    (b"8BPS", "a Photoshop file"),
    (b"%!PS", "PostScript"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\x76\x2f\x31\x01", "OpenEXR"),
    (b"gimp xcf", "a GIMP file"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\0\0\x01\0", "an icon"),
    (b"SIMPLE  =", "FITS"),
)
