"""The data lake: objects in buckets, on an S3 server or, where none is set, in folders of the platform's own."""

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
"""The buckets: what came from outside, and what was made of it."""

log = logging.getLogger(__name__)


class Lake(Protocol):
    """Objects by bucket and key. Every call but `address` may raise SourceError."""

    def get(self, bucket: str, key: str) -> bytes | None:
        """An object; None if there is none of that name."""

    def put(self, bucket: str, key: str, content: bytes) -> None:
        """Writes an object whole; whoever reads it meanwhile gets the one before."""

    def address(self, bucket: str, key: str) -> str:
        """Where people find it."""


class FolderLake:
    """A lake in `folder`: a folder a bucket."""

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
        # A session of our own: the default one would keep the first keys it saw for the whole process.
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
    """The table at the declared key; what is not there yet is put there first, from `file` or else made."""
    return Table(use_case, lake.address(DATA, declared.key), lambda: _kept(declared, lake, file))


def _kept(declared: LakeRows, lake: Lake, file: Path | None) -> bytes:
    content = lake.get(DATA, declared.key)
    if content is not None:
        return content
    address = lake.address(DATA, declared.key)
    if file is not None:
        try:
            content = file.read_bytes()
        except OSError as error:
            raise SourceError(f"{file} (DOSEL_FILES) cannot be read: {error}") from error
        log.info("%s is put there from %s", address, file)
    else:
        content = as_csv(declared.otherwise.make())
        log.warning("%s is not there and DOSEL_FILES names no file for it: %s", address, declared.otherwise.said)
    lake.put(DATA, declared.key, content)
    return content
