"""Query parameters: a name that the call does not know is refused, since a misspelt one would be ignored silently."""

from collections.abc import Collection, Iterable
from difflib import get_close_matches

from fastapi import Request
from fastapi.dependencies.utils import get_flat_dependant
from fastapi.routing import APIRoute

from app.http.problems import ALWAYS_ANSWERED
from dosel.rows.shortened import cut
from dosel.rows.validation import InvalidRows, InvalidValue, describe

MOST_ERRORS, MOST_HINTS = 10, 3
"""Most unknown names that an error lists, and for how many it proposes a known one: comparing names takes long."""

LONGEST_NAME = 40
"""Characters of the longest name that is compared with the known ones."""


async def check_parameters(request: Request) -> None:
    """Check the query of a request, as a dependency of all routes. It is asynchronous, since others run in a thread.

    Raises:
        InvalidRows: the route has no query parameter of a given name.
    """
    route = request.scope.get("route")
    # Load balancers and health checks may add parameters against caches.
    if not request.query_params or not isinstance(route, APIRoute) or request.scope["path"] in ALWAYS_ANSWERED:
        return
    known = [parameter.alias for parameter in get_flat_dependant(route.dependant).query_params]
    refuse_unknown(request.query_params.multi_items(), known)


def refuse_unknown(given: Iterable[tuple[str, str]], known: Collection[str]) -> None:
    """
    Raises:
        InvalidRows: a given name is not known.
    """
    unknown = [(name, value) for name, value in given if name not in known][:MOST_ERRORS]
    if unknown:
        raise InvalidRows(
            [
                InvalidValue(cut(name), _expected(name, known if place < MOST_HINTS else ()), describe(value))
                for place, (name, value) in enumerate(unknown)
            ]
        )


def _expected(name: str, known: Collection[str]) -> str:
    if len(name) <= LONGEST_NAME and (near := get_close_matches(name, known, n=1)):
        return f"no query parameter of this name (did you mean {near[0]}?)"
    return "no query parameter of this name" + (f" (there are: {', '.join(known)})" if known else "")
