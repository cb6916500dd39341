"""Starts deliveries and kills each at a random moment.

python -m tests.integration.killed_deliveries WAREHOUSE_URL WEBHOOK_URL KILLS SEED
"""

import os
import random
import signal
import sys
import time

from dosel.db.engine import connect
from dosel.monitor.delivery import deliver
from dosel.settings import Settings

LONGEST_SECONDS = 0.5


def main(url: str, webhook: str, kills: str, seed: str) -> None:
    dice = random.Random(int(seed))
    settings = Settings.model_validate({"warehouse_url": url, "notify_webhook": webhook})
    for _ in range(int(kills)):
        # A fork is used, since the imports take longer than many deliveries.
        if not (child := os.fork()):
            deliver(connect(url), settings)
            os._exit(0)
        time.sleep(dice.uniform(0, LONGEST_SECONDS))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
