"""The certificate by which the members of a cluster know each other.

All members share one certificate and key. A Dask scheduler runs the code of each member, so a key of its own would give
a worker no fewer rights.
"""

import base64
import binascii
import re
from typing import TYPE_CHECKING

from dosel.errors import SettingsError
from dosel.settings import Settings

if TYPE_CHECKING:
    from distributed import Security

TLS = "tls://"
_TLS = "DASK_DISTRIBUTED__COMM__TLS__"
MOST_DEATHS = 3
"""A task is given up once this many workers have died while they ran it."""
_PARTS = re.compile(r"-----BEGIN ([A-Z ]+)-----.*?-----END \1-----\n", re.DOTALL)


def security(settings: Settings) -> "Security | None":
    """What a client of the cluster needs for its address; None for an address without TLS.

    Raises:
        SettingsError: the certificate is missing or not one.
    """
    if not settings.cluster.startswith(TLS):
        return None
    from distributed import Security

    certificate, key = _pem(settings.cluster_certificate)
    return Security(tls_ca_file=certificate, tls_client_cert=certificate, tls_client_key=key, require_encryption=True)


def member_environment(settings: Settings) -> dict[str, str]:
    """Dask's configuration of a scheduler or a worker, as environment variables; no key is written to a file.

    Raises:
        SettingsError: no address is set, or its certificate is missing or not one.
    """
    if not settings.cluster:
        raise SettingsError("DOSEL_CLUSTER is not set: write the scheduler's address, such as tls://host:8786")
    found = {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": str(MOST_DEATHS - 1)}
    if settings.cluster.startswith(TLS):
        certificate, key = _pem(settings.cluster_certificate)
        found |= {"DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "True", f"{_TLS}CA_FILE": certificate}
        for role in ("SCHEDULER", "WORKER", "CLIENT"):
            found |= {f"{_TLS}{role}__CERT": certificate, f"{_TLS}{role}__KEY": key}
    return found


def _pem(encoded: str) -> tuple[str, str]:
    """The certificate and the key as PEM."""
    try:
        text = base64.urlsafe_b64decode(encoded).decode("ascii")
    except (binascii.Error, UnicodeDecodeError):
        text = ""
    parts = {found.group(1): found.group() for found in _PARTS.finditer(text)}
    if parts.keys() != {"CERTIFICATE", "PRIVATE KEY"}:
        raise SettingsError(
            "DOSEL_CLUSTER_CERTIFICATE: expected a certificate and its key as PEM in base64; `make secrets` creates it"
        )
    return parts["CERTIFICATE"], parts["PRIVATE KEY"]
