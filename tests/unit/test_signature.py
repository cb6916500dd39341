"""The signature of a version's files: what it refuses, and that other tools of OMS read it and write such."""

import base64
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from dosel.certificates import Trusted
from dosel.errors import SettingsError, UntrustedKey, UntrustedModel
from dosel.model import bundle, signature
from dosel.settings import Settings
from dosel.signing import Keys, PublicKey, SigningKey, read_keys, signing_key, trusted_keys

MODEL = "a_model"


@pytest.fixture(scope="module")
def key() -> SigningKey:
    return SigningKey(Ed25519PrivateKey.generate())


@pytest.fixture
def folder(tmp_path: Path, key: SigningKey) -> Path:
    """A signed folder."""
    return signed_folder(tmp_path / "version", key, "the model")


def signed_folder(folder: Path, key: SigningKey, content: str) -> Path:
    (folder / "serving").mkdir(parents=True)
    (folder / "model.skops").write_text(content)
    (folder / "serving" / "form.json").write_text("{}")
    # "a.txt" and "a/b" are in another order as texts than as paths.
    (folder / "a").mkdir()
    (folder / "a" / "b").write_text("1")
    (folder / "a.txt").write_text("2")
    (folder / "model.sig").write_bytes(signature.sign(key, MODEL, bundle.hash_files(folder)))
    return folder


def check(folder: Path, trusted: Trusted, model: str = MODEL) -> None:
    signature.check_folder(folder, trusted, model, bundle.hash_files(folder))


def test_a_signed_folder_is_accepted(folder: Path, key: SigningKey) -> None:
    check(folder, Trusted(key.both))


def test_a_signature_of_any_size_takes_little_memory(folder: Path, key: SigningKey) -> None:
    with (folder / "model.sig").open("r+b") as file:
        file.truncate(10_000_000_000)
    with pytest.raises(UntrustedModel, match="more than 1,000,000 bytes"):
        signature.check_folder(folder, Trusted(key.both), MODEL, {})


def edit(folder: Path, change: Callable[[dict[str, object]], object]) -> None:
    """Change the statement in a signature, which keeps its old bytes of the key."""
    document = json.loads((folder / "model.sig").read_text())
    statement = json.loads(base64.b64decode(document["dsseEnvelope"]["payload"]))
    change(statement)
    document["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()
    (folder / "model.sig").write_text(json.dumps(document))


def add_a_link(folder: Path) -> None:
    (folder / "link").symlink_to(folder / "model.skops")


TAMPERINGS: Mapping[str, tuple[Callable[[Path], object], str]] = {
    "a file changed": (lambda f: (f / "model.skops").write_text("another"), r"model\.skops changed"),
    "a file added": (lambda f: (f / "serving" / "new").write_text(""), "serving/new not in the manifest"),
    "a link added": (add_a_link, "link not in the manifest"),
    "a second signature added": (
        lambda f: shutil.copy(f / "model.sig", f / "serving" / "model.sig"),
        r"serving/model\.sig not in the manifest",
    ),
    "a file removed": (lambda f: (f / "serving" / "form.json").unlink(), r"serving/form\.json missing"),
    "the signature removed": (lambda f: (f / "model.sig").unlink(), r"no signature.*dosel sign"),
    "the signature emptied": (lambda f: (f / "model.sig").write_bytes(b""), "cannot be read"),
    "the signature is no text": (lambda f: (f / "model.sig").write_bytes(b"\xff" * 9), "cannot be read"),
    "the signature is deeply nested": (lambda f: (f / "model.sig").write_bytes(b"[" * 100_000), "cannot be read"),
    "the statement edited": (lambda f: edit(f, lambda s: s.update(subject=[])), "not valid"),
}


@pytest.mark.parametrize("tampering", TAMPERINGS)
def test_a_changed_folder_is_refused(folder: Path, key: SigningKey, tampering: str) -> None:
    change, message = TAMPERINGS[tampering]
    change(folder)
    with pytest.raises(UntrustedModel, match=message):
        check(folder, Trusted(key.both))


@pytest.mark.parametrize("part", ["payload", "sig"])
def test_every_changed_byte_of_statement_or_signature_is_refused(folder: Path, key: SigningKey, part: str) -> None:
    document = json.loads((folder / "model.sig").read_text())
    files = bundle.hash_files(folder)
    place = document["dsseEnvelope"] if part == "payload" else document["dsseEnvelope"]["signatures"][0]
    original = base64.b64decode(place[part])
    for position in range(len(original)):
        changed = bytearray(original)
        changed[position] ^= 1
        place[part] = base64.b64encode(changed).decode()
        with pytest.raises(UntrustedModel, match="not valid"):
            signature.check(json.dumps(document).encode(), Trusted(key.both), MODEL, files)


def test_the_signature_of_another_version_is_refused(folder: Path, key: SigningKey, tmp_path: Path) -> None:
    other = signed_folder(tmp_path / "other", key, "another model")
    for one, two in ((folder, other), (other, folder)):
        swapped = tmp_path / f"swapped {one.name}"
        shutil.copytree(one, swapped)
        shutil.copy(two / "model.sig", swapped)
        with pytest.raises(UntrustedModel, match=r"not those that were signed: model\.skops changed"):
            check(swapped, Trusted(key.both))


def test_the_signature_of_another_models_version_is_refused(folder: Path, key: SigningKey) -> None:
    with pytest.raises(UntrustedModel, match="is for the model 'a_model', not for 'another'"):
        check(folder, Trusted(key.both), "another")


def test_a_file_named_twice_is_refused(folder: Path, key: SigningKey) -> None:
    class Twice(dict[str, str]):
        def __iter__(self):  # type: ignore[no-untyped-def]
            return iter([*super().__iter__(), "a.txt"])

    files = bundle.hash_files(folder)
    with pytest.raises(UntrustedModel, match="names a file twice"):
        signature.check(signature.sign(key, MODEL, Twice(files)), Trusted(key.both), MODEL, files)


def test_a_version_survives_a_rotation_and_not_a_revocation(folder: Path, key: SigningKey, tmp_path: Path) -> None:
    new = SigningKey(Ed25519PrivateKey.generate())
    file = tmp_path / "trusted.pem"
    keys = Keys(Settings(trusted_keys=str(file)))

    def trust(*trusted: SigningKey) -> None:
        file.write_bytes(b"".join(public.pem() for one in trusted for public in one.both.values()))

    trust(key, new)
    check(folder, Trusted.of(keys))
    check(signed_folder(tmp_path / "by the new key", new, "x"), Trusted.of(keys))
    trust(new)
    with pytest.raises(UntrustedKey, match=f"signed by the key {key.public_of_versions.fingerprint}, which is not"):
        check(folder, Trusted.of(keys))
    check(tmp_path / "by the new key", Trusted.of(keys))


def test_a_signature_that_names_a_trusted_key_needs_that_key(folder: Path, key: SigningKey) -> None:
    other = SigningKey(Ed25519PrivateKey.generate())
    document = json.loads(signature.sign(other, MODEL, bundle.hash_files(folder)))
    document["verificationMaterial"]["publicKey"]["hint"] = key.public_of_versions.hint
    (folder / "model.sig").write_text(json.dumps(document))
    with pytest.raises(UntrustedModel, match="not valid"):
        check(folder, Trusted(key.both))


def test_the_key_of_versions_follows_from_the_signing_key(key: SigningKey) -> None:
    raw = bytes(range(32))
    same = [SigningKey(Ed25519PrivateKey.from_private_bytes(raw)).public_of_versions.fingerprint for _ in range(2)]
    # A changed derivation would make all versions of all installations untrusted.
    assert same == ["322075d2fe471064"] * 2
    assert key.public_of_versions.fingerprint != same[0]


def test_the_signing_key_may_be_in_the_environment_itself() -> None:
    private = Ed25519PrivateKey.generate()
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    settings = Settings(signing_key=pem)
    found = signing_key(settings)
    assert found is not None
    assert found.both.keys() == SigningKey(private).both.keys()
    assert pem not in repr(settings)
    with pytest.raises(SettingsError) as refused:
        signing_key(Settings(signing_key=pem[:60] + "!" + pem[60:]))
    assert pem[40:60] not in str(refused.value)


def test_the_process_that_signs_creates_a_missing_file_of_trusted_keys(tmp_path: Path) -> None:
    file = tmp_path / "trusted.pem"
    without = Settings(signing_key="none", trusted_keys=str(file))
    with pytest.raises(SettingsError, match=r"trusted\.pem"):
        trusted_keys(without)
    own = trusted_keys(Settings(signing_key=str(tmp_path / "key.pem"), trusted_keys=str(file)))
    assert trusted_keys(without).keys() == own.keys()
    assert file.stat().st_mode & 0o777 == 0o644
    with pytest.raises(SettingsError, match="has no signing key"):
        Keys(without).signing()


def test_keys_of_other_kinds_are_not_trusted(tmp_path: Path) -> None:
    public = ec.generate_private_key(ec.SECP384R1()).public_key()
    (tmp_path / "p384.pem").write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    with pytest.raises(SettingsError, match="not a file of public Ed25519 and P-256 keys"):
        read_keys(tmp_path / "p384.pem")


def test_the_verifier_of_model_signing_accepts_a_version_that_dosel_signed(
    folder: Path, key: SigningKey, tmp_path: Path
) -> None:
    from model_signing import verifying

    (tmp_path / "public.pem").write_bytes(key.public_of_versions.pem())

    def verify() -> None:
        verifying.Config().use_elliptic_key_verifier(public_key=tmp_path / "public.pem").verify(
            folder, folder / "model.sig"
        )

    verify()
    (folder / "model.skops").write_text("another")
    with pytest.raises(ValueError, match="mismatch"):
        verify()


def test_a_version_that_model_signing_signed_is_accepted(folder: Path, tmp_path: Path) -> None:
    import model_signing

    private = ec.generate_private_key(ec.SECP256R1())
    (tmp_path / "key.pem").write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    hashing = model_signing.hashing.Config().set_ignored_paths(paths=["model.sig"])
    config = model_signing.signing.Config().use_elliptic_key_signer(private_key=tmp_path / "key.pem")
    config.set_hashing_config(hashing).sign(folder, folder / "model.sig")
    public = PublicKey(private.public_key())
    # Its name for the model is that of the folder.
    check(folder, Trusted({public.fingerprint: public}), folder.name)
