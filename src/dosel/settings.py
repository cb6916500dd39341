"""The settings: environment variables, typed and validated.

Only `Settings.load()` reads dosel's settings from `os.environ`, and nothing calls it at import. The command line, the
API's factory and each DAG task call it once and pass the settings on.
"""

import os
from datetime import time
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AliasGenerator, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from dosel import credentials
from dosel.errors import SettingsError
from dosel.roles import Holder, Role, holders, named

Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0)]

ARTIFACT_BUCKET = "mlflows3"
"""The bucket of MLflow's artifacts."""

TRAINING_POOL = "training"
"""Airflow pool with `DOSEL_TRAININGS` slots, set at start: as many trainings at a time in the whole installation."""


class Settings(BaseSettings):
    """Every setting of the platform, with the sentence that docs/settings.md shows."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="ignore",
        populate_by_name=True,
        use_attribute_docstrings=True,
        alias_generator=AliasGenerator(validation_alias=lambda field: f"DOSEL_{field.upper()}"),
    )

    environment: Literal["laptop", "production"] = "laptop"
    """`production` refuses to start with a default password or key; `laptop` does not."""
    home: Path = Path(".dosel")
    """Folder of what the embedded platform writes: data, models, logs, but not the signing key."""
    warehouse_url: str = ""
    """SQLAlchemy URL of the data store; empty means a SQLite file in `DOSEL_HOME`."""
    tracking_uri: str = Field("", validation_alias="MLFLOW_TRACKING_URI")
    """MLflow's address; empty means this machine, at `MLFLOW_PORT`."""
    data_api_url: str = ""
    """The data API's address; empty means this machine, at `DATA_API_PORT`."""
    api_url: str = ""
    """The prediction API's address; empty means this machine, at `API_PORT`."""
    use_cases: str = ""
    """Names of the use cases that run, separated by commas; empty means all."""
    s3_endpoint: str = ""
    """S3 server for artifacts (bucket `mlflows3`, keys from `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`); empty
    means a folder."""
    lake_endpoint: str = Field("", validation_alias="AWS_ENDPOINT_URL_S3")
    """S3 server of the data lake (buckets `data`, `processed`, `training-rows` and `heads`); empty means that of
    `DOSEL_S3_ENDPOINT`, or the folder `lake` in `DOSEL_HOME` if that is empty too."""
    airflow_port: Port = Field(8080, validation_alias="AIRFLOW_PORT")
    """Port of Airflow."""
    mlflow_port: Port = Field(5000, validation_alias="MLFLOW_PORT")
    """Port of MLflow."""
    api_port: Port = Field(8989, validation_alias="API_PORT")
    """Port of the prediction API."""
    streamlit_port: Port = Field(8503, validation_alias="STREAMLIT_PORT")
    """Port of the page."""
    data_api_port: Port = Field(8090, validation_alias="DATA_API_PORT")
    """Port of the data API."""
    airflow_user: str = "admin"
    """Airflow's administrator."""
    airflow_password: str = "admin"
    """The administrator's password."""
    data_api_group: Annotated[int, Field(ge=1, le=10)] = Field(6, validation_alias="DATA_API_GROUP")
    """The data API's group whose batches are pulled, 1 to 10."""
    data_api_classes: Literal["uci", "course"] = Field("uci", validation_alias="DATA_API_CLASSES")
    """How the data API numbers the classes: `uci` (1 to 7) or `course` (0 to 6)."""
    ingest_every: Seconds = 300
    """Seconds between two runs of the ingest."""
    source_timeout: Seconds = 30
    """Time limit for one answer of the data API, in seconds."""
    poll_seconds: Seconds = 0.5
    """Seconds between two checks of which version is in Production."""
    max_body_bytes: Annotated[int, Field(ge=1024)] = 1_000_000
    """Largest request body that the API accepts, in bytes."""
    signing_key: str = Field("", repr=False)
    """File of the Ed25519 key that signs heads and entries of the ledgers, and from which the key for versions is
    derived, or the key itself as PEM; empty means
    `dosel/signing-key.pem` in the user's configuration folder, which is created at the first start. `none` signs
    nothing in this process."""
    entry_key: str = ""
    """File of a key with which a process without a signing key signs its entries of the ledgers, such as promotions by
    the API. In Compose, the pipeline makes it; elsewhere, `dosel entry-key` does."""
    trusted_keys: str = ""
    """File of the trusted public keys, created if it is missing; empty means those of `DOSEL_SIGNING_KEY`."""
    signing_certificate: str = ""
    """File of the certificate of the key that signs versions, and of the intermediate ones after it, as PEM; empty
    signs without a certificate."""
    trusted_roots: str = ""
    """File of the root certificates, as PEM, whose certificates are trusted on versions, beside the trusted keys; it
    may have lists of revoked certificates, too."""
    heads: str = ""
    """Folder of the signed heads of the ledgers, best on another machine's disk; empty means the bucket `heads` of the
    data lake."""
    keys: str = Field("", repr=False)
    """Keys of people and programs, as `name:role:key,name:role:key`. A `reader` may read everything, a `scorer` also
    predict, a `promoter` also change Production, an `admin` also administer Airflow, whose users have the same names
    and keys. If a setting names a reader or a scorer, predictions need a key."""
    promote_keys: str = Field("", repr=False)
    """Keys of promoters, over HTTP and on the command line, as `name:key,name:key`. If no setting names a promoter,
    nobody promotes over HTTP."""
    max_batch_bytes: Annotated[int, Field(ge=1024)] = 200_000_000
    """Largest CSV of a bulk request, in bytes; it is on disk while it is processed."""
    max_json_batch_bytes: Annotated[int, Field(ge=1024)] = 20_000_000
    """Largest JSON of a bulk request, in bytes; it is in memory while it is processed."""
    queue_depth: Annotated[int, Field(ge=1)] = 512
    """Length of the request queue of one API process; further requests get a 503 at once."""
    prediction_log: Annotated[int, Field(ge=0)] = 10_000
    """Answers that may wait to be written to the prediction log; 0 disables the log."""
    logged_batch_rows: Annotated[int, Field(ge=0, le=10_000)] = 100
    """Maximum number of rows of one bulk request that the prediction log keeps, at even distances; 0 keeps none."""
    prediction_days: Annotated[int, Field(ge=1)] = 90
    """Days after which answers and the feedback on them are deleted from the prediction log."""
    prediction_rows: Annotated[int, Field(ge=1_000)] = 20_000_000
    """Maximum number of rows in the prediction log, about 0.7 kB each. Further rows are dropped and counted until the
    next deletion, which keeps the newest nine tenths."""
    shadow_memory_mb: Annotated[float, Field(gt=0)] = 300
    """Maximum memory of a version in shadow in an API process, in megabytes; a larger version leaves shadow."""
    shadow_cpu: Annotated[float, Field(gt=0, le=1)] = 0.25
    """Largest share of one processor core that the scoring process of one API process uses; further rows are
    dropped."""
    predict_keys: str = Field("", repr=False)
    """Keys of scorers, as `name:key,name:key`. If no setting names a reader or a scorer, everybody may predict."""
    cache_key: str = Field("", repr=False)
    """Secret that signs the versions on the API's own disk; empty means a key in `DOSEL_HOME`, created at the first
    start."""
    api_key: str = Field("", repr=False)
    """Your own key: `dosel` and scripts send it, and the command line promotes with it; empty sends none. The page
    asks its visitor for a key."""
    rate_limit: Annotated[float, Field(ge=0)] = 0
    """Requests per second allowed for each key, or each address without a key; 0 means no limit."""
    trusted_proxies: str = ""
    """Addresses or networks of proxies whose `X-Forwarded-For` is trusted, separated by commas, as
    `10.0.0.5,172.18.0.0/16`; empty trusts none."""
    explain_budget: Annotated[float, Field(gt=0, le=10)] = 1.0
    """Seconds for approximate contributions in `/explain`, for models without an exact method."""
    explain_rate: Annotated[float, Field(ge=0)] = 1.0
    """Explanations per second for each client of a closed use case; bursts of 30 pass; 0 means no limit."""
    cors_origins: str = ""
    """Origins whose pages may call the API from a browser, separated by commas; empty means none."""
    patience: Seconds = 600
    """Seconds without progress after which `make up` gives up."""
    files: str = ""
    """CSV files that replace the declared sources, as `use-case=path,use-case=path`. For a use case that reads from the
    lake, the file is copied there at the first start."""
    trials: Annotated[int, Field(ge=0)] = 0
    """Number of trials of each Optuna search; 0 means the declared number (10)."""
    shadow: bool = False
    """Whether challengers of every use case prove themselves on live rows first, also where no shadow is declared."""
    notify: str = Field("", repr=False)
    """Where messages go: URLs of [Apprise](https://appriseit.com/services/), separated by blanks, such as
    `mailtos://…`, `slack://…` or `ntfy://…`; empty sends none."""
    notify_webhook: str = Field("", repr=False)
    """URL that gets every event as JSON, at once; empty sends none."""
    notify_secret: str = Field("", repr=False)
    """Secret that signs the requests to `DOSEL_NOTIFY_WEBHOOK`; empty sends them unsigned."""
    notify_quiet: str = ""
    """Hours without messages to `DOSEL_NOTIFY`, as `22:00-07:00` in the machine's time zone; harm and failed tasks
    do not wait. Empty means none."""
    notify_digest: Annotated[float, Field(ge=0)] = 0
    """Minutes for which events wait, so that one message to `DOSEL_NOTIFY` has several; harm and failed tasks do not
    wait. 0 means that none waits."""
    page_url: str = ""
    """The page's address for people, in messages; empty means localhost, at `STREAMLIT_PORT`."""
    mlflow_url: str = ""
    """MLflow's address for people, in messages and on the page; empty means localhost, at `MLFLOW_PORT`."""
    airflow_url: str = ""
    """Airflow's address for people, in messages and on the page; empty means localhost, at `AIRFLOW_PORT`."""
    docs_url: str = ""
    """Address of the API's documentation for people; empty means localhost, at `API_PORT`."""
    seed: int = 42
    """Seed of folds, forests and samples."""
    jobs: int = -1
    """Processor cores that a training uses on its own machine; -1 means all."""
    cluster: str = ""
    """Address of the Dask scheduler whose workers score candidates, as `tls://host:8786`; empty means threads of the
    training's own process."""
    cluster_certificate: str = Field("", repr=False)
    """Certificate and private key that the cluster's members share, as PEM in base64; needed for a `tls://` address."""
    trainings: Annotated[int, Field(ge=1)] = 1
    """Number of trainings that run at the same time in the whole installation."""

    @property
    def key_holders(self) -> tuple[Holder, ...]:
        """The holders of keys, of all three settings.

        Raises:
            SettingsError: a setting has another form, or a key is too short or not unique.
        """
        found = (
            *holders("DOSEL_KEYS", self.keys),
            *holders("DOSEL_PREDICT_KEYS", self.predict_keys, Role.scorer),
            *holders("DOSEL_PROMOTE_KEYS", self.promote_keys, Role.promoter),
        )
        roles: dict[str, Role] = {}
        for holder in found:
            # The older settings may give a person both rights with one key.
            roles[holder.key] = max(holder.role, roles.get(holder.key, holder.role))
        return tuple(Holder(h.name, roles[h.key], h.key) for h in {h.key: h for h in found}.values())

    @property
    def promote_key_names(self) -> dict[str, str]:
        """The key holders who may change Production over HTTP: names by key.

        Raises:
            SettingsError: as `key_holders`.
        """
        return named(self.key_holders, Role.promoter)

    @property
    def predict_key_names(self) -> dict[str, str]:
        """The key holders who may predict: names by key. Empty means everybody.

        Raises:
            SettingsError: as `key_holders`.
        """
        return named(self.key_holders, Role.scorer) if self.read_key_names else {}

    @property
    def own_key(self) -> str:
        """The key of this installation's own calls to the API: DOSEL_API_KEY, or the first declared that may predict.

        Raises:
            SettingsError: as `key_holders`.
        """
        return self.api_key or next(iter(self.predict_key_names), "")

    @property
    def read_key_names(self) -> dict[str, str]:
        """The key holders who may read what is closed: names by key. Empty means everybody.

        As long as there are only keys for promotions, reading and predicting need none.

        Raises:
            SettingsError: as `key_holders`.
        """
        found = self.key_holders
        return named(found, Role.reader) if any(holder.role <= Role.scorer for holder in found) else {}

    @property
    def proxy_networks(self) -> list[IPv4Network | IPv6Network]:
        """The networks of the trusted proxies.

        Raises:
            SettingsError: an entry is no address and no network.
        """
        try:
            return [ip_network(entry) for entry in _listed(self.trusted_proxies)]
        except ValueError as error:
            raise SettingsError(f"DOSEL_TRUSTED_PROXIES: expected addresses or networks; {error}") from None

    @property
    def sends_messages(self) -> bool:
        """Whether there is somewhere to send messages to."""
        return bool(self.notify.strip() or self.notify_webhook)

    @property
    def quiet_hours(self) -> tuple[time, time] | None:
        """The beginning and the end of the hours without messages; None if there are none.

        Raises:
            SettingsError: the setting has another form.
        """
        if not self.notify_quiet:
            return None
        try:
            begin, end = map(time.fromisoformat, self.notify_quiet.split("-"))
        except ValueError:
            raise SettingsError(
                f"DOSEL_NOTIFY_QUIET: expected hours such as 22:00-07:00, got {self.notify_quiet!r}"
            ) from None
        return begin, end

    @property
    def studies_url(self) -> str:
        """The database for Optuna's trials: the data store, or a file of its own if the data store is SQLite."""
        return self.warehouse_url if "sqlite" not in self.warehouse_url else f"sqlite:///{self.home / 'studies.db'}"

    def file_of(self, use_case: str) -> Path | None:
        """The file that `DOSEL_FILES` names for a use case, or None.

        Raises:
            SettingsError: the setting has another form.
        """
        named = {}
        for pair in _listed(self.files):
            name, _, path = pair.partition("=")
            if not name or not path or name in named:
                raise SettingsError(f"DOSEL_FILES: expected use-case=path,use-case=path, got {pair!r}")
            named[name] = Path(path).expanduser()
        return named.get(use_case)

    @model_validator(mode="after")
    def _fill_addresses(self) -> Self:
        derived: dict[str, Any] = {
            "home": self.home.absolute(),
            "warehouse_url": self.warehouse_url or f"sqlite:///{self.home.absolute() / 'warehouse.db'}",
            "tracking_uri": self.tracking_uri or f"http://127.0.0.1:{self.mlflow_port}",
            "data_api_url": self.data_api_url or f"http://127.0.0.1:{self.data_api_port}",
            "api_url": self.api_url or f"http://127.0.0.1:{self.api_port}",
            "page_url": self.page_url or f"http://localhost:{self.streamlit_port}",
            "mlflow_url": self.mlflow_url or f"http://localhost:{self.mlflow_port}",
            "airflow_url": self.airflow_url or f"http://localhost:{self.airflow_port}",
            "docs_url": self.docs_url or f"http://localhost:{self.api_port}/docs",
        }
        # The model is frozen, so its own validator writes to the dictionary.
        self.__dict__.update(derived)
        return self

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, *_: Any, **__: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # Not by field name: in the environment, `home` would be the user's HOME.
        environment = EnvSettingsSource(settings_cls)
        environment.config = SettingsConfigDict(**environment.config | {"populate_by_name": False})
        return init_settings, environment

    @classmethod
    def load(cls) -> "Settings":
        """Read the settings from the environment.

        Raises:
            SettingsError: a value is invalid, or is a default password in production; the message names the variable.
        """
        try:
            settings = cls()
        except ValidationError as error:
            wrong = [f"{'.'.join(map(str, e['loc']))}: {e['msg']} (got {e['input']!r})" for e in error.errors()]
            raise SettingsError("settings: " + "; ".join(wrong)) from None
        if settings.environment == "production":
            credentials.refuse_defaults(os.environ)
            settings._refuse_open_cluster()
        return settings

    def _refuse_open_cluster(self) -> None:
        if self.cluster and not self.cluster.startswith("tls://"):
            raise SettingsError(
                f"DOSEL_ENVIRONMENT=production, but DOSEL_CLUSTER={self.cluster} is not protected: a scheduler runs "
                "the code of everybody who reaches it; use tls://host:port"
            )


def _listed(text: str) -> list[str]:
    """The parts of a text that are separated by commas, without blanks and empty parts."""
    return [part.strip() for part in text.split(",") if part.strip()]
