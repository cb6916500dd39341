"""Certificates of an organisation for the key that signs versions, and the trusted roots."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.verification import Criticality, ExtensionPolicy, Policy, PolicyBuilder, Store, VerificationError

from dosel.errors import SettingsError, UntrustedKey
from dosel.settings import Settings
from dosel.signing import Keys, PublicKey, SigningKey

MOST_INTERMEDIATES = 4

_REVOKED = b"-----BEGIN X509 CRL-----"


def request(key: SigningKey, name: str) -> bytes:
    """A request, as PEM, for a certificate of the key that signs versions. `name` is its common name."""
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    usage = x509.KeyUsage(True, *[False] * 8)
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject).add_extension(usage, critical=True)
    return key.signed_request(builder).public_bytes(Encoding.PEM)


def chain_of(keys: Keys) -> tuple[bytes, ...]:
    """The certificate of the key that signs versions, and the intermediates after it, each as DER; empty without one.

    Raises:
        SettingsError: the file has no certificate, or one that is not valid now or belongs to another key.
    """
    if not keys.settings.signing_certificate:
        return ()
    file, key = Path(keys.settings.signing_certificate), keys.signing()
    try:
        chain = x509.load_pem_x509_certificates(file.expanduser().read_bytes())
    except (OSError, ValueError) as error:
        raise SettingsError(f"DOSEL_SIGNING_CERTIFICATE: {file} is not a file of certificates ({error})") from error
    first, now = chain[0], datetime.now(UTC)
    if _key_of(first) != key.public_of_versions:
        raise SettingsError(
            f"DOSEL_SIGNING_CERTIFICATE: the first certificate in {file} is not that of this process's key; `dosel "
            "public-key --request NAME` prints a request for one"
        )
    if not first.not_valid_before_utc <= now <= first.not_valid_after_utc:
        raise SettingsError(
            f"DOSEL_SIGNING_CERTIFICATE: the certificate in {file} is valid from {first.not_valid_before_utc:%Y-%m-%d} "
            f"to {first.not_valid_after_utc:%Y-%m-%d}"
        )
    return tuple(certificate.public_bytes(Encoding.DER) for certificate in chain)


def leaf_key(chain: Sequence[bytes]) -> PublicKey | None:
    """The key of a chain's first certificate; None if there is none that can sign versions."""
    try:
        return _key_of(x509.load_der_x509_certificate(chain[0]))
    except (IndexError, ValueError, UnsupportedAlgorithm):
        return None


@dataclass(frozen=True)
class Roots:
    """Certificates that end a chain, and lists of certificates that their issuers have revoked."""

    certificates: tuple[x509.Certificate, ...] = ()
    revoked: tuple[x509.CertificateRevocationList, ...] = ()

    @classmethod
    def of(cls, settings: Settings) -> "Roots":
        """The roots of the file that `DOSEL_TRUSTED_ROOTS` names; without the setting, there are none."""
        return cls.read(Path(settings.trusted_roots)) if settings.trusted_roots else NO_ROOTS

    @classmethod
    def read(cls, file: Path) -> "Roots":
        """Those in a file of PEM blocks.

        Raises:
            SettingsError: the file cannot be read, or has no certificate.
        """
        try:
            content = file.expanduser().read_bytes()
            parts = content.split(_REVOKED)[1:]
            return cls(
                tuple(x509.load_pem_x509_certificates(content)),
                tuple(x509.load_pem_x509_crl(_REVOKED + part) for part in parts),
            )
        except (OSError, ValueError) as error:
            raise SettingsError(f"{file} is not a file of certificates ({error})") from error

    def check(self, chain: Sequence[bytes]) -> None:
        """Check that a chain ends at a root, as it did when its first certificate began to be valid.

        A version stays trusted when the certificate has expired since; a revoked certificate's versions do not.

        Raises:
            UntrustedKey: it does not, a certificate is revoked, or the first one is not for signatures.
        """
        if not self.certificates:
            raise UntrustedKey("the files are signed with a certificate, and no root is trusted (DOSEL_TRUSTED_ROOTS)")
        try:
            leaf, *others = (x509.load_der_x509_certificate(content) for content in chain)
            verifier = (
                PolicyBuilder()
                .store(Store(list(self.certificates)))
                .time(leaf.not_valid_before_utc)
                .max_chain_depth(MOST_INTERMEDIATES)
                .extension_policies(
                    ca_policy=ExtensionPolicy.webpki_defaults_ca(),
                    ee_policy=ExtensionPolicy.permit_all().require_present(
                        x509.KeyUsage, Criticality.AGNOSTIC, _check_usage
                    ),
                )
                .build_client_verifier()
            )
            found = verifier.verify(leaf, others).chain
        except (VerificationError, ValueError, UnsupportedAlgorithm) as error:
            raise UntrustedKey(
                f"no trusted root issued the certificate with which the files are signed ({error})"
            ) from error
        for certificate, issuer in pairwise(found):
            if any(_revokes(listed, certificate, issuer) for listed in self.revoked):
                name = certificate.subject.rfc4514_string()
                raise UntrustedKey(f"the files are signed with a certificate that was revoked: {name}")


NO_ROOTS = Roots()


@dataclass(frozen=True)
class Trusted:
    """What is trusted on versions: keys by fingerprint, and certificates of roots."""

    keys: Mapping[str, PublicKey]
    roots: Roots = NO_ROOTS

    @classmethod
    def of(cls, keys: Keys) -> "Trusted":
        """What a process trusts now.

        Raises:
            SettingsError: a file is missing, or has something else.
        """
        return cls(keys.trusted(), Roots.of(keys.settings))


def _revokes(listed: x509.CertificateRevocationList, certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    key: Any = issuer.public_key()
    return (
        listed.issuer == issuer.subject
        and listed.is_signature_valid(key)
        and listed.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None
    )


def _check_usage(_: Policy, __: x509.Certificate, usage: x509.KeyUsage) -> None:
    if not usage.digital_signature:
        raise ValueError("it is not for signatures")


def _key_of(certificate: x509.Certificate) -> PublicKey | None:
    key = certificate.public_key()
    return PublicKey(key) if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == "secp256r1" else None
