"""Names, notes, embeddings and crops encrypted at rest: AES-256-GCM, the key from the environment only."""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
import hmac
import os
import zlib
from typing import Protocol

from visavis.errors import DataError

KEY_VARIABLE = "VISAVIS_GALLERY_KEY"
_NONCE = 12


class Cipher(Protocol):
    """Turns what is stored into bytes for the file and back; `context` must be the same both times."""

    def encrypt(self, plaintext: bytes, context: bytes) -> bytes:
        """Bytes for the file."""
        ...

    def decrypt(self, stored: bytes, context: bytes) -> bytes:
        """Bytes as they were before `encrypt`."""
        ...

    def digest(self, plaintext: bytes, context: bytes) -> bytes:
        """Always the same bytes for the same plain ones, to look them up by."""
        ...

    def lookup(self, plaintext: bytes, context: bytes) -> bytes:
        """Always the same bytes for the same plain ones, which `plain_lookup` gives back."""
        ...

    def plain_lookup(self, stored: bytes, context: bytes) -> bytes | None:
        """The bytes given to `lookup`; None when these came from `digest`."""
        ...

    def checksum(self, data: bytes, context: bytes) -> int:
        """A number of at most 63 bits that changes when `data` does."""
        ...


class NoCipher:
    """No encryption."""

    def encrypt(self, plaintext: bytes, context: bytes) -> bytes:
        """The bytes themselves."""
        return plaintext

    def decrypt(self, stored: bytes, context: bytes) -> bytes:
        """The bytes themselves."""
        return stored

    def digest(self, plaintext: bytes, context: bytes) -> bytes:
        """The bytes themselves."""
        return plaintext

    def lookup(self, plaintext: bytes, context: bytes) -> bytes:
        """The bytes themselves."""
        return plaintext

    def plain_lookup(self, stored: bytes, context: bytes) -> bytes | None:
        """The bytes themselves."""
        return stored

    def checksum(self, data: bytes, context: bytes) -> int:
        """CRC-32: finds every burst of up to 32 bits."""
        return zlib.crc32(data)


class AesGcm:
    """nonce (12 bytes, random) ‖ AES-256-GCM(key, nonce, plain, context); 28 bytes longer than the plain text.

    NIST SP 800-38D. A random 96-bit nonce allows 2³² sealings under one key.
    """

    def __init__(self, key: bytes) -> None:
        try:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESSIV
        except ImportError as error:
            raise DataError('encryption wants the package cryptography; type: pip install "visavis[serve]"') from error
        if len(key) != 32:
            raise DataError(f"{KEY_VARIABLE} must hold 32 bytes, got {len(key)}; make one with: {new_key_command()}")
        self._cipher = AESGCM(key)
        self._digest_key = hmac.digest(key, b"visavis: names and pictures", "sha256")
        self._lookup = AESSIV(hmac.digest(key, b"visavis: lookups", "sha512"))
        self._checksum_key = hmac.digest(key, b"visavis: rows", "sha256")

    def encrypt(self, plaintext: bytes, context: bytes) -> bytes:
        """Encrypt and authenticate."""
        nonce = os.urandom(_NONCE)
        return nonce + self._cipher.encrypt(nonce, plaintext, context)

    def decrypt(self, stored: bytes, context: bytes) -> bytes:
        """Decrypt.

        Raises:
            DataError: another key, or bytes changed since they were written.
        """
        from cryptography.exceptions import InvalidTag

        try:
            return self._cipher.decrypt(stored[:_NONCE], stored[_NONCE:], context)
        except (InvalidTag, ValueError) as error:
            raise DataError(f"cannot decrypt: {KEY_VARIABLE} is not this gallery's key, or the file changed") from error

    def digest(self, plaintext: bytes, context: bytes) -> bytes:
        """HMAC-SHA-256 under a key derived from the sealing key: without it, names cannot be tried."""
        return hmac.digest(self._digest_key, context + b"\0" + plaintext, "sha256")

    def lookup(self, plaintext: bytes, context: bytes) -> bytes:
        """AES-SIV (RFC 5297): deterministic, 16 bytes longer than the plain ones."""
        return self._lookup.encrypt(plaintext, [context])

    def plain_lookup(self, stored: bytes, context: bytes) -> bytes | None:
        """Decrypt; None for another key's or a `digest`'s."""
        from cryptography.exceptions import InvalidTag

        try:
            return self._lookup.decrypt(stored, [context])
        except (InvalidTag, ValueError):
            return None

    def checksum(self, data: bytes, context: bytes) -> int:
        """Keyed BLAKE2b of 63 bits: without the key no other row fits."""
        code = hashlib.blake2b(data, digest_size=8, key=self._checksum_key, salt=_short(context)).digest()
        return int.from_bytes(code, "big") >> 1


@functools.lru_cache(maxsize=64)
def _short(context: bytes) -> bytes:
    return hashlib.blake2b(context, digest_size=16).digest()


def new_key_command() -> str:
    """What to type for a fresh key."""
    return f"export {KEY_VARIABLE}=$(openssl rand -base64 32)"


def cipher_from_environment() -> Cipher:
    """AES-GCM under the key in `VISAVIS_GALLERY_KEY` (32 bytes, base64), or none when the variable is unset.

    Raises:
        DataError: the variable holds no 32 bytes in base64.
    """
    text = os.environ.get(KEY_VARIABLE, "")
    if not text:
        return NoCipher()
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise DataError(f"{KEY_VARIABLE} must be base64; make one with: {new_key_command()}") from error
    return AesGcm(key)
