"""Versions signed with an organisation's certificate: which are trusted, and that other tools of OMS agree."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from dosel import certificates
from dosel.certificates import Roots, Trusted
from dosel.errors import SettingsError, UntrustedKey, UntrustedModel
from dosel.model import bundle, signature
from dosel.settings import Settings
from dosel.signing import Keys, SigningKey

MODEL = "a_model"
NOW = datetime.now(UTC)
DAY = timedelta(days=1)
USAGE = x509.KeyUsage(True, *[False] * 8)
OF_A_CA = x509.KeyUsage(False, False, False, False, False, True, True, False, False)


@dataclass(frozen=True)
class Authority:
    """Issues certificates."""

    name: str
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    def issue(
        self, name: str, public: Any, usage: x509.KeyUsage = USAGE, ca: bool = False, days: tuple[int, int] = (-2, 300)
    ) -> x509.Certificate:
        own = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        return (
            builder(name, self.name, public, days)
            .add_extension(x509.BasicConstraints(ca, None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(own, critical=False)
            .sign(self.key, hashes.SHA256())
        )

    def authority(self, name: str, days: tuple[int, int] = (-2, 300)) -> "Authority":
        key = ec.generate_private_key(ec.SECP256R1())
        return Authority(name, key, self.issue(name, key.public_key(), OF_A_CA, ca=True, days=days))


def named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])


def builder(name: str, issuer: str, public: Any, days: tuple[int, int]) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(named(name))
        .issuer_name(named(issuer))
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW + days[0] * DAY)
        .not_valid_after(NOW + days[1] * DAY)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def root(name: str = "root") -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        builder(name, name, key.public_key(), (-10, 3_000))
        .add_extension(x509.BasicConstraints(True, None), critical=True)
        .add_extension(OF_A_CA, critical=True)
        .sign(key, hashes.SHA256())
    )
    return Authority(name, key, certificate)


def der(*chain: x509.Certificate) -> tuple[bytes, ...]:
    return tuple(certificate.public_bytes(Encoding.DER) for certificate in chain)


def pem(*parts: x509.Certificate | x509.CertificateRevocationList) -> bytes:
    return b"".join(part.public_bytes(Encoding.PEM) for part in parts)


@dataclass(frozen=True)
class Signed:
    """A signed folder, with what issued the certificate."""

    folder: Path
    key: SigningKey
    root: Authority
    between: Authority

    def sign(self, *chain: x509.Certificate) -> None:
        files = bundle.hash_files(self.folder)
        (self.folder / bundle.SIGNATURE_FILE).write_bytes(signature.sign(self.key, MODEL, files, der(*chain)))

    def check(self, trusted: Trusted) -> None:
        signature.check_folder(self.folder, trusted, MODEL, bundle.hash_files(self.folder))

    def leaf(self, **given: Any) -> x509.Certificate:
        return self.between.issue("pipeline", public_key(self.key), **given)

    @property
    def roots(self) -> Roots:
        return Roots((self.root.certificate,))


def public_key(key: SigningKey) -> Any:
    return x509.load_pem_x509_csr(certificates.request(key, "pipeline")).public_key()


@pytest.fixture
def signed(tmp_path: Path) -> Signed:
    folder = tmp_path / "version"
    folder.mkdir()
    (folder / "model.skops").write_text("the model")
    top = root()
    made = Signed(folder, SigningKey(Ed25519PrivateKey.generate()), top, top.authority("between"))
    made.sign(made.leaf(), made.between.certificate)
    return made


def test_a_certificate_of_a_trusted_root_is_trusted_without_the_key(signed: Signed) -> None:
    signed.check(Trusted({}, signed.roots))
    (signed.folder / "model.skops").write_text("another")
    with pytest.raises(UntrustedModel, match=r"model\.skops changed"):
        signed.check(Trusted({}, signed.roots))


def test_a_trusted_key_signs_without_its_certificates_root(signed: Signed) -> None:
    signed.check(Trusted(signed.key.both))
    with pytest.raises(UntrustedKey, match="no root is trusted"):
        signed.check(Trusted({}))


def test_a_version_stays_trusted_after_its_certificate_has_expired(signed: Signed) -> None:
    signed.sign(signed.leaf(days=(-1, 0)), signed.between.certificate)
    signed.check(Trusted({}, signed.roots))


def without_the_one_between(made: Signed) -> Roots:
    made.sign(made.leaf())
    return made.roots


def of_another_root(made: Signed) -> Roots:
    return Roots((root().certificate,))


def by_one_that_is_no_authority(made: Signed) -> Roots:
    key = ec.generate_private_key(ec.SECP256R1())
    somebody = Authority("somebody", key, made.between.issue("somebody", key.public_key()))
    made.sign(somebody.issue("pipeline", public_key(made.key)), somebody.certificate, made.between.certificate)
    return made.roots


def by_one_that_had_expired(made: Signed) -> Roots:
    expired = made.root.authority("expired", days=(-9, -5))
    made.sign(expired.issue("pipeline", public_key(made.key)), expired.certificate)
    return made.roots


def not_for_signatures(made: Signed) -> Roots:
    made.sign(made.leaf(usage=OF_A_CA), made.between.certificate)
    return made.roots


def signed_by_itself(made: Signed) -> Roots:
    stranger = root("pipeline")
    made.sign(stranger.certificate)
    return made.roots


@pytest.mark.parametrize(
    "case",
    [
        without_the_one_between,
        of_another_root,
        by_one_that_is_no_authority,
        by_one_that_had_expired,
        not_for_signatures,
        signed_by_itself,
    ],
)
def test_other_certificates_are_not_trusted(signed: Signed, case: Callable[[Signed], Roots]) -> None:
    roots = case(signed)
    with pytest.raises(UntrustedKey, match="no trusted root issued the certificate"):
        signed.check(Trusted({}, roots))


def test_the_certificate_of_another_key_signs_nothing(signed: Signed) -> None:
    other = SigningKey(Ed25519PrivateKey.generate())
    signed.sign(signed.between.issue("pipeline", public_key(other)), signed.between.certificate)
    with pytest.raises(UntrustedModel, match="not valid"):
        signed.check(Trusted({}, signed.roots))


@pytest.mark.parametrize("content", [b"", b"\x30\x03\x02\x01\x01"])
def test_what_is_no_certificate_is_refused(signed: Signed, content: bytes) -> None:
    files = bundle.hash_files(signed.folder)
    (signed.folder / bundle.SIGNATURE_FILE).write_bytes(signature.sign(signed.key, MODEL, files, [content]))
    with pytest.raises(UntrustedKey):
        signed.check(Trusted({}, signed.roots))


@pytest.mark.parametrize(("issuer", "which"), [("between", "pipeline"), ("root", "between")])
def test_a_revoked_certificates_versions_are_refused(signed: Signed, issuer: str, which: str) -> None:
    leaf = signed.leaf()
    signed.sign(leaf, signed.between.certificate)
    by: Authority = getattr(signed, issuer)
    serial = (leaf if which == "pipeline" else signed.between.certificate).serial_number

    def listed(authority: Authority) -> x509.CertificateRevocationList:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(NOW).build()
        made = x509.CertificateRevocationListBuilder().issuer_name(named(by.name)).last_update(NOW)
        return made.next_update(NOW + DAY).add_revoked_certificate(entry).sign(authority.key, hashes.SHA256())

    # A list in the issuer's name that another one signed does not count.
    signed.check(Trusted({}, replace(signed.roots, revoked=(listed(root(by.name)),))))
    with pytest.raises(UntrustedKey, match=f"was revoked: CN={which}"):
        signed.check(Trusted({}, replace(signed.roots, revoked=(listed(by),))))


def test_a_process_signs_with_the_certificate_of_its_settings(tmp_path: Path, signed: Signed) -> None:
    private = Ed25519PrivateKey.generate()
    own = SigningKey(private)
    text = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    chain, roots = tmp_path / "chain.pem", tmp_path / "roots.pem"
    roots.write_bytes(pem(signed.root.certificate))
    settings = Settings(signing_key=text, signing_certificate=str(chain), trusted_roots=str(roots))
    files = bundle.hash_files(signed.folder)

    chain.write_bytes(pem(signed.between.issue("pipeline", public_key(own)), signed.between.certificate))
    made = signature.signed(Keys(settings), MODEL, files)
    assert signature.key_of(made) == own.public_of_versions.fingerprint
    other = Settings(signing_key="none", trusted_keys=str(tmp_path / "keys.pem"), trusted_roots=str(roots))
    (tmp_path / "keys.pem").write_bytes(b"".join(key.pem() for key in signed.key.both.values()))
    signature.check(made, Trusted.of(Keys(other)), MODEL, files)

    for wrong, message in (
        (pem(signed.leaf()), "not that of this process's key"),
        (pem(signed.between.issue("pipeline", public_key(own), days=(-5, -1))), "is valid from"),
        (b"", "not a file of certificates"),
    ):
        chain.write_bytes(wrong)
        with pytest.raises(SettingsError, match=message):
            signature.signed(Keys(settings), MODEL, files)


def test_a_file_without_roots_is_refused(tmp_path: Path) -> None:
    (tmp_path / "roots.pem").write_text("nothing")
    with pytest.raises(SettingsError, match="not a file of certificates"):
        Roots.read(tmp_path / "roots.pem")


def test_the_verifier_of_model_signing_accepts_dosels_certificates(signed: Signed, tmp_path: Path) -> None:
    from model_signing import verifying

    (tmp_path / "root.pem").write_bytes(pem(signed.root.certificate))
    config = verifying.Config().use_certificate_verifier(certificate_chain=[tmp_path / "root.pem"])
    config.verify(signed.folder, signed.folder / "model.sig")


def test_a_certificate_with_which_model_signing_signed_is_accepted(signed: Signed, tmp_path: Path) -> None:
    import model_signing

    private = ec.generate_private_key(ec.SECP256R1())
    (tmp_path / "key.pem").write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (tmp_path / "leaf.pem").write_bytes(pem(signed.between.issue("another tool", private.public_key())))
    (tmp_path / "between.pem").write_bytes(pem(signed.between.certificate))
    hashing = model_signing.hashing.Config().set_ignored_paths(paths=["model.sig"])
    config = model_signing.signing.Config().use_certificate_signer(
        private_key=tmp_path / "key.pem",
        signing_certificate=tmp_path / "leaf.pem",
        certificate_chain=[tmp_path / "between.pem"],
    )
    (signed.folder / bundle.SIGNATURE_FILE).unlink()
    config.set_hashing_config(hashing).sign(signed.folder, signed.folder / "model.sig")
    files = bundle.hash_files(signed.folder)
    signature.check_folder(signed.folder, Trusted({}, signed.roots), signed.folder.name, files)
