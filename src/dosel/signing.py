"""The keys that sign heads of the ledgers and versions, and the trusted keys.

The signing key lies outside `DOSEL_HOME`, so that nobody can sign anything with write access to the data alone. Heads
and entries of the ledgers are signed with it (Ed25519), versions with a key derived from it (ECDSA P-256), since the
format of their signatures has no Ed25519. Trusted keys are public: their file has the keys in use and those before
them. A key that was stolen is taken out of the file.
"""

import hashlib
import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TypeGuard

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from dosel.errors import SettingsError
from dosel.files import replace_file
from dosel.settings import Settings

_BEGIN, _END = b"-----BEGIN PUBLIC KEY-----", b"-----END PUBLIC KEY-----"

_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


class PublicKey:
    """A key that checks signatures: Ed25519 for heads and entries, ECDSA P-256 for versions."""

    def __init__(self, public: Ed25519PublicKey | ec.EllipticCurvePublicKey) -> None:
        self._public = public

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PublicKey) and self.hint == other.hint

    def __hash__(self) -> int:
        return hash(self.hint)

    @cached_property
    def fingerprint(self) -> str:
        """The first 16 hexadecimal digits of a SHA-256: of an Ed25519 key's bytes, or of a P-256 key as PEM."""
        if isinstance(self._public, Ed25519PublicKey):
            raw = self._public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
            return hashlib.sha256(raw).hexdigest()[:16]
        return self.hint[:16]

    @cached_property
    def hint(self) -> str:
        """SHA-256 of the key as PEM, by which a version's signature names it."""
        return hashlib.sha256(self.pem()).hexdigest()

    def pem(self) -> bytes:
        """The key as a file's content."""
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return self._public.public_bytes(serialization.Encoding.PEM, form)

    def signed(self, message: bytes, signature: bytes) -> bool:
        """Whether the signature is this key's, for this message."""
        try:
            if isinstance(self._public, Ed25519PublicKey):
                self._public.verify(signature, message)
            else:
                self._public.verify(signature, message, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            return False
        return True


class SigningKey:
    """A private key."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private

    @cached_property
    def public(self) -> PublicKey:
        return PublicKey(self._private.public_key())

    @cached_property
    def public_of_versions(self) -> PublicKey:
        return PublicKey(self._of_versions.public_key())

    @property
    def both(self) -> Mapping[str, PublicKey]:
        """The two public keys, by fingerprint."""
        return {key.fingerprint: key for key in (self.public, self.public_of_versions)}

    def sign(self, message: bytes) -> bytes:
        """The signature of a head or an entry: 64 bytes."""
        return self._private.sign(message)

    def sign_version(self, message: bytes) -> bytes:
        """The signature of a version, as DER."""
        return self._of_versions.sign(message, ec.ECDSA(hashes.SHA256()))

    def signed_request(self, request: x509.CertificateSigningRequestBuilder) -> x509.CertificateSigningRequest:
        """A request for a certificate of the key that signs versions."""
        return request.sign(self._of_versions, hashes.SHA256())

    @cached_property
    def _of_versions(self) -> ec.EllipticCurvePrivateKey:
        """Derived as in FIPS 186-5, A.2.1: from more random bits than the key has, modulo the curve's order."""
        form, none = serialization.PrivateFormat.Raw, serialization.NoEncryption()
        secret = self._private.private_bytes(serialization.Encoding.Raw, form, none)
        bits = HKDF(hashes.SHA256(), 48, salt=None, info=b"dosel versions 1").derive(secret)
        number = int.from_bytes(bits, "big") % (_P256_ORDER - 1) + 1
        return ec.derive_private_key(number, ec.SECP256R1())


class Keys:
    """The keys of a process. They are read each time, so that a revoked key is refused at once.

    Args:
        settings: those that name the keys; by default those of the environment.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self._settings = settings

    @property
    def settings(self) -> Settings:
        return self._settings or Settings()

    def trusted(self) -> Mapping[str, PublicKey]:
        """As `trusted_keys`."""
        return trusted_keys(self.settings)

    def signing(self) -> SigningKey:
        """The key that signs.

        Raises:
            SettingsError: this process has none, or it cannot be used.
        """
        key = signing_key(self.settings)
        if key is None:
            raise SettingsError("this process has no signing key (DOSEL_SIGNING_KEY=none), so it cannot sign a version")
        return key


def signing_key(settings: Settings) -> SigningKey | None:
    """The key of this process, which is created at the first call; None if the setting says that there is none.

    Raises:
        SettingsError: the file is not a key, others may read it, or it cannot be created.
    """
    if settings.signing_key == "none":
        return None
    place, content = "DOSEL_SIGNING_KEY", settings.signing_key.encode()
    try:
        if not settings.signing_key.startswith("-----BEGIN"):
            file = key_file(settings)
            place = f"DOSEL_SIGNING_KEY: {file}"
            if not file.exists():
                _create(file)
            if file.stat().st_mode & 0o077:
                raise SettingsError(f"DOSEL_SIGNING_KEY: other users may read {file}; run `chmod 600 {file}`")
            content = file.read_bytes()
        private = serialization.load_pem_private_key(content, None)
    except (OSError, ValueError, TypeError) as error:
        raise SettingsError(f"{place} cannot be used ({error})") from error
    if not isinstance(private, Ed25519PrivateKey):
        raise SettingsError(f"{place} is no Ed25519 key")
    return SigningKey(private)


def trusted_keys(settings: Settings) -> Mapping[str, PublicKey]:
    """The trusted keys, by fingerprint: those of the setting's file, or this process's own.

    A file that is missing is created by the process that signs, with its own keys.

    Raises:
        SettingsError: a file is missing, or is not a list of keys.
    """
    if not settings.trusted_keys:
        own = signing_key(settings)
        return own.both if own else {}
    file = Path(settings.trusted_keys).expanduser()
    if not file.exists() and (own := signing_key(settings)):
        _write_public(file, own)
    return read_keys(file)


def read_keys(file: Path) -> Mapping[str, PublicKey]:
    """The public keys in a file of PEM blocks, by fingerprint.

    Raises:
        SettingsError: the file cannot be read, or has something else.
    """
    try:
        blocks = [block[block.index(_BEGIN) :] + _END for block in file.read_bytes().split(_END)[:-1]]
        keys = [serialization.load_pem_public_key(block) for block in blocks]
    except (OSError, ValueError) as error:
        raise SettingsError(f"{file} is not a file of public keys ({error})") from error
    found = [PublicKey(key) for key in keys if isinstance(key, Ed25519PublicKey) or _is_p256(key)]
    if not keys or len(found) < len(keys):
        raise SettingsError(f"{file} is not a file of public Ed25519 and P-256 keys")
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
    _write_public(file.with_suffix(".pub"), SigningKey(private))


def _write_public(file: Path, key: SigningKey) -> None:
    """Write a file of public keys that every user may read."""
    try:
        replace_file(file, b"".join(public.pem() for public in key.both.values()), 0o644)
    except OSError as error:
        raise SettingsError(f"the public keys cannot be written to {file} ({error})") from error


def _is_p256(key: object) -> TypeGuard[ec.EllipticCurvePublicKey]:
    return isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)
