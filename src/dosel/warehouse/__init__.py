"""The data store: raw and clean tables, the batch ledger and the promotion ledger.

MySQL in the full platform, a SQLite file when embedded; the same code for both.
"""

from dosel.warehouse.batches import BatchStore
from dosel.warehouse.engine import connect
from dosel.warehouse.promotions import Promotion, PromotionLedger
from dosel.warehouse.records import BatchRecord, RefusedRow

__all__ = ["BatchRecord", "BatchStore", "Promotion", "PromotionLedger", "RefusedRow", "connect"]
