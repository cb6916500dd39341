"""Signs and checks single entries of the ledgers: a signature says that a process of this installation wrote one.

A process with the signing key signs with it. One that may add entries but must not sign versions, such as the API in
Compose, has an entry key: a key of its own, whose public half the signing key has signed. So those who trust the
signing key trust its entries, too.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from dosel.errors import SettingsError
from dosel.files import replace_file
from dosel.settings import Settings
from dosel.signing import Keys, PublicKey, SigningKey, signing_key

_CERTIFIED = b"dosel entry key 1\n"
"""What the signing key signs before the bytes of an entry key's public half."""


def sign_entry(message: bytes, settings: Settings) -> str:
    """The signature of an entry, with the name of the key, for `is_entry_signed`.

    Raises:
        SettingsError: this process has neither a signing key nor an entry key, or it cannot be used.
    """
    if (key := signing_key(settings)) is not None:
        return f"{key.public.fingerprint}:{key.sign(message).hex()}"
    if (own := entry_key(settings)) is not None:
        return own.sign(message)
    raise SettingsError(
        "this process can add no entry to the ledgers: it has no signing key (DOSEL_SIGNING_KEY=none), and "
        "DOSEL_ENTRY_KEY names no key that the pipeline has made (`dosel entry-key`)"
    )


def is_entry_signed(message: bytes, named: str, keys: Mapping[str, PublicKey]) -> bool:
    """Whether one of these keys, by fingerprint, or an entry key that it certified, signed an entry."""
    name, *parts = named.split(":")
    key = keys.get(name)
    try:
        match [bytes.fromhex(part) for part in parts]:
            case [signature] if key is not None:
                return key.signed(message, signature)
            case [certificate, raw, signature] if key is not None and key.signed(_CERTIFIED + raw, certificate):
                return PublicKey(Ed25519PublicKey.from_public_bytes(raw)).signed(message, signature)
    except ValueError:
        # Not hexadecimal, or no key.
        pass
    return False


class EntryKey:
    """A private key that signs entries of the ledgers, and nothing else.

    Args:
        certificate: the signing key's signature of the public half, with the signing key's name.
    """

    def __init__(self, private: Ed25519PrivateKey, certificate: str) -> None:
        self._private = private
        self._certificate = certificate

    def sign(self, message: bytes) -> str:
        """The signature of an entry, with the public half and its certificate."""
        raw = self._private.public_key().public_bytes_raw()
        return f"{self._certificate}:{raw.hex()}:{self._private.sign(message).hex()}"

    def document(self) -> str:
        """The key as a file's content."""
        return json.dumps({"key": self._private.private_bytes_raw().hex(), "certificate": self._certificate})

    @classmethod
    def read(cls, content: str) -> "EntryKey":
        """
        Raises:
            ValueError, KeyError, TypeError: the content is something else.
        """
        known = json.loads(content)
        return cls(Ed25519PrivateKey.from_private_bytes(bytes.fromhex(known["key"])), str(known["certificate"]))

    def is_of(self, key: SigningKey) -> bool:
        """Whether that signing key made it."""
        return is_entry_signed(b"", self.sign(b""), key.both)

    @classmethod
    def made_by(cls, key: SigningKey) -> "EntryKey":
        """Make an entry key, which that signing key certifies."""
        private = Ed25519PrivateKey.generate()
        raw = private.public_key().public_bytes_raw()
        return cls(private, f"{key.public.fingerprint}:{key.sign(_CERTIFIED + raw).hex()}")


def entry_key(settings: Settings) -> EntryKey | None:
    """The entry key of this process; None without one.

    Raises:
        SettingsError: the file is something else, others may read it, or it cannot be read.
    """
    file = Path(settings.entry_key).expanduser()
    if not settings.entry_key or not file.exists():
        return None
    try:
        if file.stat().st_mode & 0o077:
            raise SettingsError(f"DOSEL_ENTRY_KEY: other users may read {file}; run `chmod 600 {file}`")
        return EntryKey.read(file.read_text())
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SettingsError(f"DOSEL_ENTRY_KEY: {file} cannot be used ({error})") from error


def write_entry_key(settings: Settings) -> bool:
    """Make the file `DOSEL_ENTRY_KEY`, unless the present signing key has made it; return whether it did.

    Raises:
        SettingsError: this process has no signing key, or the file cannot be written.
    """
    key, known = Keys(settings).signing(), entry_key(settings)
    if known is not None and known.is_of(key):
        return False
    file = Path(settings.entry_key).expanduser()
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        replace_file(file, EntryKey.made_by(key).document())
    except OSError as error:
        raise SettingsError(f"DOSEL_ENTRY_KEY: {file} cannot be written ({error})") from error
    return True
