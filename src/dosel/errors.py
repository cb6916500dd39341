"""The exceptions of the domain.

Every message names what failed and what to do. The API turns these exceptions into problem documents, a DAG task fails
with them, and the command line prints one line.
"""


class DoselError(Exception):
    """The base class of all exceptions that dosel raises on purpose."""


class SettingsError(DoselError):
    """A setting is missing or invalid."""


class UnknownUseCase(DoselError):
    """No use case has that name."""


class SourceError(DoselError):
    """Rows could not be fetched."""


class SourceUnavailable(SourceError):
    """The source cannot answer now. `retry_after` is the delay that it asked for, in seconds, or None."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class WarehouseError(DoselError):
    """The data store cannot be reached, or refused."""


class LockTaken(WarehouseError):
    """Another process held a lock for too long."""


class PromotionConflict(WarehouseError):
    """Production changed meanwhile."""


class AccountingError(WarehouseError):
    """The tables do not match the batch ledger."""


class SchemaError(WarehouseError):
    """A use case's tables do not fit its declaration."""


class QualityError(DoselError):
    """Too many rows of a batch are invalid."""


class TrainingError(DoselError):
    """The rows cannot give a meaningful model."""


class ClusterError(DoselError):
    """The Dask cluster cannot do its part of a training."""


class ClusterUnavailable(ClusterError):
    """The cluster's scheduler or its workers cannot be reached; try again."""


class ClusterMismatch(ClusterError):
    """A worker's software differs from the driver's, so that its scores might differ, too."""


class ClusterTaskKilled(ClusterError):
    """A task was given up because its workers died while they ran it."""


class NotExplainable(DoselError):
    """A version has no training rows, which explanations need."""


class UnknownAnswers(DoselError):
    """The prediction log has no such answers.

    Args:
        may_come: the log may be behind; otherwise, a request had fewer rows, or an id is none of the API's.
    """

    def __init__(self, message: str, may_come: bool = True) -> None:
        super().__init__(message)
        self.may_come = may_come


class TruthConflict(DoselError):
    """An answer has another truth already."""


class RegistryError(DoselError):
    """MLflow's registry cannot be reached, or refused."""


class ModelNotFound(RegistryError):
    """No such model or version, or none in Production."""


class UntrustedModel(RegistryError):
    """A version has no manifest or signature, or its files differ from them."""


class UntrustedKey(UntrustedModel):
    """A version is signed by a key that is not trusted."""


class DeclarationChanged(UntrustedModel):
    """A version was trained for columns of another meaning."""


class PromotionRefused(RegistryError):
    """A promotion, a rollback or the end of a shadow was refused."""


class ApprovalsMissing(PromotionRefused):
    """A promotion waits for more people. `number` is that of the model's request."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.number = number


class ReproductionError(DoselError):
    """A version cannot be trained again."""


class ServiceError(DoselError):
    """The prediction API did not answer as documented."""


class AnswerTimeout(ServiceError):
    """The prediction API did not answer in time."""


class DeliveryError(DoselError):
    """A message could not be delivered."""


class StartupError(DoselError):
    """The embedded platform cannot start."""


class ProgramMissing(StartupError):
    """A program is not installed."""
