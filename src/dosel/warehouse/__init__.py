"""The data store: raw and clean tables, the batch ledger and the promotion ledger.

MySQL in the full platform, a SQLite file when embedded; the same code for both.
"""

from dosel.warehouse.batches import BatchStore
from dosel.warehouse.engine import connect, engine_arguments
from dosel.warehouse.locks import Turn
from dosel.warehouse.manifests import Manifest
from dosel.warehouse.predictions import PredictionRecord, PredictionStore
from dosel.warehouse.promotions import Evidence, Kind, Note, Promotion, PromotionLedger
from dosel.warehouse.records import BatchRecord, RefusedRow

__all__ = [
    "BatchRecord",
    "BatchStore",
    "Evidence",
    "Kind",
    "Manifest",
    "Note",
    "PredictionRecord",
    "PredictionStore",
    "Promotion",
    "PromotionLedger",
    "RefusedRow",
    "Turn",
    "connect",
    "engine_arguments",
]
