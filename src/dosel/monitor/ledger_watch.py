"""The hourly check of the ledgers: a wrong entry is an event, and a right chain gets a signed head."""

import logging

from dosel.certificates import Roots
from dosel.db.engine import connect
from dosel.monitor.delivery import try_to_deliver
from dosel.monitor.incidents import ledger_mismatch
from dosel.registry.heads import Heads, publish
from dosel.registry.ledger_verification import Verified, read_ledgers, verify
from dosel.settings import Settings
from dosel.signing import trusted_keys
from dosel.warehouse.events import EventStore

log = logging.getLogger(__name__)


def verify_ledgers(settings: Settings) -> Verified:
    """Verify every entry against the rows and the signed heads. If all are right, sign the last one.

    Raises:
        SettingsError: a key cannot be used.
        SourceError: the heads cannot be read or written.
        WarehouseError: the data store cannot be reached, or failed.
    """
    engine = connect(settings.warehouse_url)
    found = verify(read_ledgers(engine, Heads.opened(settings).all()), trusted_keys(settings), Roots.of(settings))
    if problem := found.first_problem:
        log.error("the ledgers are wrong: %s", problem)
        if EventStore(engine).add(ledger_mismatch(problem)):
            try_to_deliver(engine, settings)
        return found
    head = publish(engine, settings)
    signed = f", the head of entry {head.sequence} is signed" if head else ""
    log.info("%d entries of the ledgers are right%s", found.entries, signed)
    return found
