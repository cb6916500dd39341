"""Ed25519 keys: the one that signs what the ledgers said, and the ones whose signatures are believed.

The signing key lies outside `DOSEL_HOME`, so that who can write to the data that it signs cannot sign. Keys that are
believed are public: their file has the key in use and those before it. A key that was stolen is taken out of the file.
"""

import hashlib
import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from tempfile import NamedTemporaryFile

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from dosel.errors import SettingsError
from dosel.settings import Settings

_END = b"-----END PUBLIC KEY-----"


class SigningKey:
    """A private key."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private

    @cached_property
    def public(self) -> "PublicKey":
        return PublicKey(self._private.public_key())

    def sign(self, message: bytes) -> str:
        """The signature, as 128 hexadecimal digits."""
        return self._private.sign(message).hex()


class PublicKey:
    """A key that checks signatures."""

    def __init__(self, public: Ed25519PublicKey) -> None:
        self._public = public

    @cached_property
    def fingerprint(self) -> str:
        """The first 16 hexadecimal digits of the SHA-256 of the key's bytes."""
        raw = self._public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        return hashlib.sha256(raw).hexdigest()[:16]

    def pem(self) -> bytes:
        """The key as a file's content."""
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return self._public.public_bytes(serialization.Encoding.PEM, form)

    def signed(self, message: bytes, signature: str) -> bool:
        """Whether the signature is this key's, for this message."""
        try:
            self._public.verify(bytes.fromhex(signature), message)
        except (InvalidSignature, ValueError):
            return False
        return True


def signing_key(settings: Settings) -> SigningKey | None:
    """The key of this process, which is created at the first call; None if the setting says that there is none.

    Raises:
        SettingsError: the file is not a key, others may read it, or it cannot be created.
    """
    if settings.signing_key == "none":
        return None
    file = key_file(settings)
    try:
        if not file.exists():
            _create(file)
        if file.stat().st_mode & 0o077:
            raise SettingsError(f"DOSEL_SIGNING_KEY: other users may read {file}; run `chmod 600 {file}`")
        private = serialization.load_pem_private_key(file.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise SettingsError(f"DOSEL_SIGNING_KEY: {file} cannot be used ({error})") from error
    if not isinstance(private, Ed25519PrivateKey):
        raise SettingsError(f"DOSEL_SIGNING_KEY: {file} is no Ed25519 key")
    return SigningKey(private)


def trusted_keys(settings: Settings) -> Mapping[str, PublicKey]:
    """The keys whose signatures are believed, by fingerprint: those of the setting's file, or this process's own.

    Raises:
        SettingsError: a file is missing, or is not a list of keys.
    """
    if settings.trusted_keys:
        return read_keys(Path(settings.trusted_keys).expanduser())
    own = signing_key(settings)
    return {own.public.fingerprint: own.public} if own else {}


def read_keys(file: Path) -> Mapping[str, PublicKey]:
    """The public keys in a file of PEM blocks, by fingerprint.

    Raises:
        SettingsError: the file cannot be read, or has something else.
    """
    try:
        blocks = [block + _END for block in file.read_bytes().split(_END)[:-1]]
        keys = [serialization.load_pem_public_key(block) for block in blocks]
    except (OSError, ValueError) as error:
        raise SettingsError(f"{file} is not a file of public keys ({error})") from error
    if not keys or not all(isinstance(key, Ed25519PublicKey) for key in keys):
        raise SettingsError(f"{file} is not a file of public Ed25519 keys")
    found = [PublicKey(key) for key in keys if isinstance(key, Ed25519PublicKey)]
    return {key.fingerprint: key for key in found}


def key_file(settings: Settings) -> Path:
    """Where the signing key is."""
    if settings.signing_key:
        return Path(settings.signing_key).expanduser()
    return Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "dosel" / "signing-key.pem"


def _create(file: Path) -> None:
    """Write a new key, and its public half beside it; another process may do the same, and one of them wins."""
    private = Ed25519PrivateKey.generate()
    form, encryption = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with NamedTemporaryFile(dir=file.parent, prefix=".half-") as half:
        # Temporary files are for their owner alone.
        half.write(private.private_bytes(serialization.Encoding.PEM, form, encryption))
        half.flush()
        try:
            os.link(half.name, file)
        except FileExistsError:
            return
    file.with_suffix(".pub").write_bytes(SigningKey(private).public.pem())
