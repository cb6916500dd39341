"""Runs an app with uvicorn and the flags of the prediction API.

python -m app.server app.main:create_app --port 8989        takes uvicorn's other flags, too
"""

import os
import resource
import sys

import uvicorn

from app.http.worker_metrics import shared_folder

FLAGS = (
    "--factory",
    *("--http", "app.http.protocol:BoundedHttp"),
    # No route is a WebSocket, and `app.http.clients` decides which proxies are trusted.
    *("--ws", "none", "--no-proxy-headers"),
    # Longer than clients and load balancers keep an idle connection (5 to 60 s): if both ends close at the same moment,
    # the next request is lost.
    *("--timeout-keep-alive", "75"),
    # The API writes its own access log, and finishes open requests before it stops.
    *("--no-access-log", "--no-server-header", "--timeout-graceful-shutdown", "30"),
)

MOST_FILES = 16_384
"""Open files and connections, where the system allows as many; its default is often 1,024."""


def main(arguments: list[str]) -> None:
    """Run until a signal ends it.

    Args:
        arguments: the app's import name, and flags of uvicorn.
    """
    # Its cache and its logs are for its own user only, also where no `make up` has made the folder.
    os.umask(0o077)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < MOST_FILES:
        most = MOST_FILES if hard == resource.RLIM_INFINITY else min(MOST_FILES, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
    flags = [*FLAGS, *arguments]
    with shared_folder(workers(flags)):
        uvicorn.main(flags)


def workers(flags: list[str]) -> int:
    """The number of worker processes that uvicorn starts with these flags."""
    # Errors in the flags are uvicorn's to report, later.
    given = uvicorn.main.make_context("uvicorn", list(flags), resilient_parsing=True).params["workers"]
    return int(given or os.environ.get("WEB_CONCURRENCY", "1"))


if __name__ == "__main__":
    main(sys.argv[1:])
