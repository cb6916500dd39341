"""A model registry platform: from an outside source of rows to a model in Production, with a ledger of every change.

Each package is a room with one task; docs/how-it-works.md lists the rooms. The import contracts in pyproject.toml say
which room may import which.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dosel.client import ApiProblem as ApiProblem
    from dosel.client import Client

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # Imported when it is used: httpx takes a tenth of a second, which most commands do without.
    if name == "ApiProblem":
        from dosel.client import ApiProblem

        return ApiProblem
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def open(url: str = "", key: str = "") -> "Client":
    """The client of a prediction API, for scripts and notebooks.

    Args:
        url: the API's address; by default `DOSEL_API_URL`, which is the API that `make up` starts.
        key: sent with each request; by default `DOSEL_API_KEY`, if the address is that of `DOSEL_API_URL`.
    """
    from dosel.client import Client
    from dosel.settings import Settings

    settings = Settings()
    # The key of one API is nothing for another one to see.
    own_key = settings.api_key if url.rstrip("/") in ("", settings.api_url.rstrip("/")) else ""
    return Client(url or settings.api_url, key=key or own_key)
