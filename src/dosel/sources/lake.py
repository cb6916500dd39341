"""The data lake: objects in buckets on an S3 server, or files in folders if no server is set."""

import logging
import os
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Protocol

from dosel.errors import SourceError, SourceUnavailable
from dosel.settings import Settings
from dosel.sources.table import Table, as_csv
from dosel.usecases import LakeRows, UseCase

DATA, PROCESSED = "data", "processed"
"""The buckets: source files, and preprocessed rows."""

log = logging.getLogger(__name__)


class Lake(Protocol):
    """Objects by bucket and key. Every call except `address` may raise SourceError."""

    def get(self, bucket: str, key: str) -> bytes | None:
        """An object's content; None if there is no such object."""

    def put(self, bucket: str, key: str, content: bytes) -> None:
        """Write an object atomically: a concurrent reader gets the old content."""

    def address(self, bucket: str, key: str) -> str:
        """The object's address, for people."""


class FolderLake:
    """A lake in `folder`, with one folder for each bucket."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, bucket: str, key: str) -> bytes | None:
        try:
            return (self._folder / bucket / key).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise SourceError(f"{self.address(bucket, key)} cannot be read: {error}") from error

    def put(self, bucket: str, key: str, content: bytes) -> None:
        file = self._folder / bucket / key
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with NamedTemporaryFile(dir=file.parent, prefix=".half-", delete=False) as half:
                half.write(content)
            os.replace(half.name, file)
        except OSError as error:
            raise SourceError(f"{self.address(bucket, key)} cannot be written: {error}") from error

    def address(self, bucket: str, key: str) -> str:
        return str(self._folder / bucket / key)


class S3Lake:
    """A lake on the S3 server at `endpoint`, with keys as in `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`."""

    def __init__(self, endpoint: str) -> None:
        import boto3
        from botocore.config import Config

        config = Config(connect_timeout=5, read_timeout=30, retries={"max_attempts": 3})
        self._endpoint = endpoint
        # Not boto3's default session, which keeps the first keys it reads for the whole process.
        self._s3 = boto3.Session().client("s3", endpoint_url=endpoint, config=config)

    def get(self, bucket: str, key: str) -> bytes | None:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            body: bytes = self._s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        except ClientError as error:
            if error.response["Error"]["Code"] in ("NoSuchKey", "NoSuchBucket"):
                return None
            raise self._refused(bucket, key, error) from error
        except BotoCoreError as error:
            raise self._unreachable(error) from error
        return body

    def put(self, bucket: str, key: str, content: bytes) -> None:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            try:
                self._s3.put_object(Bucket=bucket, Key=key, Body=content)
            except self._s3.exceptions.NoSuchBucket:
                self._s3.create_bucket(Bucket=bucket)
                self._s3.put_object(Bucket=bucket, Key=key, Body=content)
        except ClientError as error:
            raise self._refused(bucket, key, error) from error
        except BotoCoreError as error:
            raise self._unreachable(error) from error

    def address(self, bucket: str, key: str) -> str:
        return f"s3://{bucket}/{key}"

    def _refused(self, bucket: str, key: str, error: Exception) -> SourceError:
        return SourceError(f"the S3 server at {self._endpoint} refused {self.address(bucket, key)}: {error}")

    def _unreachable(self, error: Exception) -> SourceUnavailable:
        return SourceUnavailable(f"the S3 server at {self._endpoint} cannot be reached ({error}); is it running?")


def open_lake(settings: Settings) -> Lake:
    """The lake of this installation."""
    endpoint = settings.lake_endpoint or settings.s3_endpoint
    return S3Lake(endpoint) if endpoint else FolderLake(settings.home / "lake")


def lake_table(use_case: UseCase, declared: LakeRows, lake: Lake, file: Path | None) -> Table:
    """The table at the declared key; if there is none, it is first copied from `file` or generated."""
    return Table(use_case, lake.address(DATA, declared.key), lambda: _read_or_create(declared, lake, file))


def _read_or_create(declared: LakeRows, lake: Lake, file: Path | None) -> bytes:
    content = lake.get(DATA, declared.key)
    if content is not None:
        return content
    address = lake.address(DATA, declared.key)
    if file is not None:
        try:
            content = file.read_bytes()
        except OSError as error:
            raise SourceError(f"{file} (DOSEL_FILES) cannot be read: {error}") from error
        log.info("%s was copied from %s", address, file)
    else:
        content = as_csv(declared.otherwise.generate())
        log.warning(
            "%s does not exist and DOSEL_FILES names no file for it: %s", address, declared.otherwise.description
        )
    lake.put(DATA, declared.key, content)
    return content
