"""The signature of a version's files: `model.sig`, in the format of OpenSSF Model Signing (OMS) 1.0.

It is a Sigstore bundle whose DSSE envelope has an in-toto statement of the digest of each file. Other tools of OMS read
it too; dosel reads it without them, since a check at each load must be cheap (docs/adr/0019-signed-versions.md).
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from dosel.certificates import Trusted, chain_of, leaf_key
from dosel.errors import UntrustedKey, UntrustedModel
from dosel.files import read_at_most
from dosel.model import bundle
from dosel.signing import Keys, PublicKey, SigningKey

MOST_BYTES = 1_000_000
"""Largest signature."""

_MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_PAYLOAD_TYPE = "application/vnd.in-toto+json"
_STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
_PREDICATE_TYPE = "https://model_signing/signature/v1.0"
_SERIALIZATION = {
    "method": "files",
    "hash_type": "sha256",
    "allow_symlinks": False,
    "ignore_paths": [bundle.SIGNATURE_FILE],
}


class _Signature(msgspec.Struct):
    sig: bytes
    keyid: str = ""


class _Envelope(msgspec.Struct, rename="camel"):
    payload: bytes
    payload_type: str
    signatures: list[_Signature]


class _KeyHint(msgspec.Struct):
    hint: str


class _Certificate(msgspec.Struct, rename="camel"):
    raw_bytes: bytes


class _Chain(msgspec.Struct):
    certificates: list[_Certificate]


class _Material(msgspec.Struct, rename="camel", omit_defaults=True):
    """Either the key by its hint, or a certificate of it, and those above that."""

    tlog_entries: list[Any]
    public_key: _KeyHint | None = None
    x509_certificate_chain: _Chain | None = None


class _Bundle(msgspec.Struct, rename="camel"):
    media_type: str
    verification_material: _Material
    dsse_envelope: _Envelope


class _Resource(msgspec.Struct):
    name: str
    algorithm: str
    digest: str


class _Predicate(msgspec.Struct):
    serialization: dict[str, Any]
    resources: list[_Resource]


class _Subject(msgspec.Struct):
    name: str
    digest: dict[str, str]


class _Statement(msgspec.Struct, rename={"type": "_type", "predicate_type": "predicateType"}):
    type: str
    subject: list[_Subject]
    predicate_type: str
    predicate: _Predicate


def signed(keys: Keys, model: str, files: Mapping[str, str]) -> bytes:
    """As `sign`, with the key and the certificate of this process.

    Raises:
        SettingsError: it has no signing key, or cannot use its key or its certificate.
    """
    return sign(keys.signing(), model, files, chain_of(keys))


def sign(key: SigningKey, model: str, files: Mapping[str, str], chain: Sequence[bytes] = ()) -> bytes:
    """The content of `model.sig` for a model's files.

    Args:
        files: SHA-256 of each file by its path, without the signature itself.
        chain: the key's certificate and those above it, as DER, if it has one.
    """
    resources = [_Resource(path, "sha256", files[path]) for path in sorted(files)]
    subject = _Subject(model, {"sha256": _root(resources)})
    payload = msgspec.json.encode(
        _Statement(_STATEMENT_TYPE, [subject], _PREDICATE_TYPE, _Predicate(_SERIALIZATION, resources))
    )
    envelope = _Envelope(payload, _PAYLOAD_TYPE, [_Signature(key.sign_version(_signed_bytes(payload)))])
    if chain:
        material = _Material([], x509_certificate_chain=_Chain([_Certificate(content) for content in chain]))
    else:
        material = _Material([], _KeyHint(key.public_of_versions.hint))
    return msgspec.json.encode(_Bundle(_MEDIA_TYPE, material, envelope))


def check(content: bytes, trusted: Trusted, model: str, files: Mapping[str, str]) -> None:
    """Check that a trusted key signed exactly these files of a model.

    Args:
        trusted: the trusted keys and roots.
        files: SHA-256 of each file by its path, as they were found.

    Raises:
        UntrustedKey: another key did.
        UntrustedModel: none did; the message says what differs.
    """
    try:
        signature = msgspec.json.decode(content, type=_Bundle)
        envelope = signature.dsse_envelope
        if (signature.media_type, envelope.payload_type) != (_MEDIA_TYPE, _PAYLOAD_TYPE):
            raise UntrustedModel("the signature has another format than OMS 1.0")
        key = _trusted_key(signature.verification_material, trusted)
        message = _signed_bytes(envelope.payload)
        if not envelope.signatures or not key.signed(message, envelope.signatures[0].sig):
            raise UntrustedModel("the signature is not valid")
        statement = msgspec.json.decode(envelope.payload, type=_Statement)
    except msgspec.DecodeError as error:
        raise UntrustedModel(f"the signature cannot be read ({error})") from error
    _check_statement(statement, model, files)


def key_of(content: str | bytes) -> str:
    """The fingerprint of the key that a signature names, valid or not; "" if the signature cannot be read."""
    try:
        material = msgspec.json.decode(content, type=_Bundle).verification_material
    except msgspec.DecodeError:
        return ""
    if material.public_key is not None:
        return material.public_key.hint[:16]
    key = leaf_key(_chain(material))
    return key.fingerprint if key else ""


def _trusted_key(material: _Material, trusted: Trusted) -> PublicKey:
    """The key that a signature names, if it is trusted: by itself, or by its certificate.

    Raises:
        UntrustedKey: it is not.
    """
    key = leaf_key(_chain(material))
    hint = key.hint if key else material.public_key.hint if material.public_key else ""
    known = trusted.keys.get(hint[:16])
    if known is not None and known.hint == hint:
        return known
    if key is None:
        raise UntrustedKey(f"the files are signed by the key {hint[:16]}, which is not trusted")
    trusted.roots.check(_chain(material))
    return key


def _chain(material: _Material) -> list[bytes]:
    chain = material.x509_certificate_chain
    return [certificate.raw_bytes for certificate in chain.certificates] if chain else []


def check_folder(folder: Path, trusted: Trusted, model: str, files: Mapping[str, str]) -> None:
    """As `check`, with the signature in a version's folder."""
    file = folder / bundle.SIGNATURE_FILE
    if not file.is_file():
        raise UntrustedModel(
            f"there is no signature ({bundle.SIGNATURE_FILE}); if an older dosel registered them, run `dosel sign`"
        )
    try:
        content = read_at_most(file, MOST_BYTES)
    except OSError as error:
        raise UntrustedModel(f"the signature cannot be read: {error}") from error
    check(content, trusted, model, files)


def _check_statement(statement: _Statement, model: str, files: Mapping[str, str]) -> None:
    resources = statement.predicate.resources
    if (statement.type, statement.predicate_type) != (_STATEMENT_TYPE, _PREDICATE_TYPE):
        raise UntrustedModel("the signature has another format than OMS 1.0")
    if [(subject.name, subject.digest.get("sha256")) for subject in statement.subject] != [(model, _root(resources))]:
        named = ", ".join(subject.name for subject in statement.subject)
        raise UntrustedModel(f"the signature is for the model {named!r}, not for {model!r}")
    signed = {resource.name: resource.digest for resource in resources if resource.algorithm == "sha256"}
    if len(signed) < len(resources):
        raise UntrustedModel("the signature names a file twice, or has other digests than SHA-256")
    if difference := bundle.differences(signed, files):
        raise UntrustedModel(f"the files are not those that were signed: {difference}")


def _root(resources: list[_Resource]) -> str:
    """SHA-256 over the files' digests, in the order of the statement."""
    return hashlib.sha256(b"".join(_bytes(resource.digest) for resource in resources)).hexdigest()


def _bytes(digest: str) -> bytes:
    try:
        return bytes.fromhex(digest)
    except ValueError:
        raise UntrustedModel("the signature has a digest that is not hexadecimal") from None


def _signed_bytes(payload: bytes) -> bytes:
    """What is signed: DSSE's pre-authentication encoding of the statement."""
    return f"DSSEv1 {len(_PAYLOAD_TYPE)} {_PAYLOAD_TYPE} {len(payload)} ".encode() + payload
