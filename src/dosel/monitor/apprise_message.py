"""Sends one message by Apprise: `python -m dosel.monitor.apprise_message`, with the message as JSON on stdin.

A process of its own, with a bound on its memory: Apprise reads whatever a service answers, and waits for it as long as
bytes come. `send` ends the process after `SECONDS`.
"""

import json
import logging
import resource
import subprocess
import sys

SECONDS = 30.0
"""Time limit of one message."""

MEMORY_BYTES = 500_000_000


def send(url: str, title: str, body: str) -> str:
    """Send a message; return why it was not sent, or ""."""
    message = json.dumps({"url": url, "title": title, "body": body, "memory": MEMORY_BYTES})
    command = [sys.executable, "-m", __name__]
    try:
        ended = subprocess.run(command, input=message, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"the service did not finish its answer in {SECONDS:g} s"
    if ended.returncode == 0:
        return ""
    # Apprise's own words come last. On one line of a log, and without commands for the terminal that shows it.
    last = ended.stderr.strip().splitlines()[-1:] or [f"the process ended with {ended.returncode}"]
    return "".join(c if c.isprintable() else " " for c in last[0])[:300]


def main() -> int:
    """Send the message on stdin; the log, on stderr, says why it was not sent."""
    message = json.load(sys.stdin)
    resource.setrlimit(resource.RLIMIT_DATA, (message["memory"], message["memory"]))
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    from apprise import Apprise, NotifyFormat

    receiver = Apprise()
    is_sent = receiver.add(message["url"]) and receiver.notify(
        body=message["body"], title=message["title"], body_format=NotifyFormat.TEXT
    )
    return 0 if is_sent else 1


if __name__ == "__main__":
    sys.exit(main())
