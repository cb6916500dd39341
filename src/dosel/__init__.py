"""A model registry platform: from an outside source of rows to a model in Production, with a ledger of every change.

Each package is a room with one task; docs/how-it-works.md lists the rooms. The import contracts in pyproject.toml say
which room may import which.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dosel.client import Client

__version__ = "0.1.0"


def open(url: str = "", key: str = "") -> "Client":
    """The client of a prediction API, for scripts and notebooks.

    Args:
        url: the API's address; by default `DOSEL_API_URL`, which is the API that `make up` starts.
        key: sent with each request; by default `DOSEL_API_KEY`.
    """
    from dosel.client import Client
    from dosel.settings import Settings

    settings = Settings()
    return Client(url or settings.api_url, key=key or settings.api_key)
