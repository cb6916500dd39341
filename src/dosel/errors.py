"""What can go wrong, in the words of the domain.

    DoselError
    ├── SettingsError            a setting is missing or makes no sense
    ├── UnknownUseCase           no use case of that name is declared
    ├── SourceError              rows could not be fetched
    │   └── SourceUnavailable    ... for now: worth another try
    ├── WarehouseError           the data store could not be reached or refused
    │   ├── PromotionConflict    ... since Production was moved by somebody else meanwhile
    │   └── AccountingError      ... or does not hold the rows that its ledger says
    ├── QualityError             too many rows of a batch are unacceptable
    ├── TrainingError            there is nothing sensible to train on
    ├── NotExplainable           a version was registered without what explaining it needs
    ├── RegistryError            MLflow's registry could not be reached or refused
    │   ├── ModelNotFound        no model of that name, or no version of it in Production
    │   ├── UntrustedModel       nobody vouched for its files, or they are not what they were
    │   └── PromotionRefused     there is nothing to go back to
    ├── ServiceError             our own API did not answer as it promises
    └── StartupError             the embedded platform cannot start, or did not come up
        └── ProgramMissing       ... for this machine lacks a program

Every message names what failed and what to do about it. Each door to the outside maps them to its own
medium: the API to problem documents, a DAG task to a failed task, the command line to one line.
"""


class DoselError(Exception):
    """The root: catch this to catch everything dosel raises on purpose."""


class SettingsError(DoselError):
    pass


class UnknownUseCase(DoselError):
    pass


class SourceError(DoselError):
    pass


class SourceUnavailable(SourceError):
    """The source may answer later.

    `retry_after` is what it asked for, in seconds, or None.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class WarehouseError(DoselError):
    pass


class PromotionConflict(WarehouseError):
    pass


class AccountingError(WarehouseError):
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


class PromotionRefused(RegistryError):
    pass


class ServiceError(DoselError):
    pass


class StartupError(DoselError):
    pass


class ProgramMissing(StartupError):
    pass
