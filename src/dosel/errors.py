"""The exceptions of the domain.

    DoselError
    ├── SettingsError            a setting is missing or invalid
    ├── UnknownUseCase           no use case has that name
    ├── SourceError              rows could not be fetched
    │   └── SourceUnavailable    ... but a later attempt may succeed
    ├── WarehouseError           the data store cannot be reached, or refused
    │   ├── PromotionConflict    ... because Production changed meanwhile
    │   ├── AccountingError      ... or its tables do not match the batch ledger
    │   └── SchemaError          ... or a use case's tables do not fit its declaration
    ├── QualityError             too many rows of a batch are invalid
    ├── TrainingError            the rows cannot give a meaningful model
    ├── NotExplainable           a version has no training rows, which explanations need
    ├── RegistryError            MLflow's registry cannot be reached, or refused
    │   ├── ModelNotFound        no such model or version, or none in Production
    │   ├── UntrustedModel       a version has no manifest, or its files differ from it
    │   │   └── DeclarationChanged  ... or it was trained for columns of another meaning
    │   └── PromotionRefused     a rollback has no version to return to
    ├── ServiceError             the prediction API did not answer as documented
    └── StartupError             the embedded platform cannot start
        └── ProgramMissing       ... because a program is not installed

Every message names what failed and what to do. The API turns these exceptions into problem documents, a DAG task fails
with them, and the command line prints one line.
"""


class DoselError(Exception):
    """The base class of all exceptions that dosel raises on purpose."""


class SettingsError(DoselError):
    pass


class UnknownUseCase(DoselError):
    pass


class SourceError(DoselError):
    pass


class SourceUnavailable(SourceError):
    """The source cannot answer now. `retry_after` is the delay that it asked for, in seconds, or None."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class WarehouseError(DoselError):
    pass


class PromotionConflict(WarehouseError):
    pass


class AccountingError(WarehouseError):
    pass


class SchemaError(WarehouseError):
    pass


class QualityError(DoselError):
    pass


class TrainingError(DoselError):
    pass


class NotExplainable(DoselError):
    pass


class RegistryError(DoselError):
    pass


class ModelNotFound(RegistryError):
    pass


class UntrustedModel(RegistryError):
    pass


class DeclarationChanged(UntrustedModel):
    pass


class PromotionRefused(RegistryError):
    pass


class ServiceError(DoselError):
    pass


class StartupError(DoselError):
    pass


class ProgramMissing(StartupError):
    pass
