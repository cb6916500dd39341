"""The data lake: objects in buckets on an S3 server, or files in folders if no server is set."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Protocol

from dosel.errors import SourceError, SourceUnavailable
from dosel.settings import Settings

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

DATA, PROCESSED, TRAINING_ROWS, HEADS = "data", "processed", "training-rows", "heads"
"""The buckets: source files, preprocessed rows, rows that the workers of a cluster train on, heads of the ledgers."""

_HALF = ".half-"
"""Beginning of the name of a file that is being written."""


class Lake(Protocol):
    """Objects by bucket and key. Every call except `address` may raise SourceError."""

    def get(self, bucket: str, key: str) -> bytes | None:
        """An object's content; None if there is no such object."""

    def holds(self, bucket: str, key: str) -> bool:
        """Whether there is such an object."""

    def put(self, bucket: str, key: str, content: bytes) -> None:
        """Write an object atomically: a concurrent reader gets the old content."""

    def keys(self, bucket: str) -> list[str]:
        """The keys of a bucket's objects, in order; none if there is no such bucket."""

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

    def holds(self, bucket: str, key: str) -> bool:
        return (self._folder / bucket / key).exists()

    def put(self, bucket: str, key: str, content: bytes) -> None:
        file = self._folder / bucket / key
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with NamedTemporaryFile(dir=file.parent, prefix=_HALF, delete=False) as half:
                half.write(content)
            os.replace(half.name, file)
        except OSError as error:
            raise SourceError(f"{self.address(bucket, key)} cannot be written: {error}") from error

    def keys(self, bucket: str) -> list[str]:
        folder = self._folder / bucket
        try:
            files = [file.relative_to(folder) for file in folder.rglob("*") if file.is_file()]
        except OSError as error:
            raise SourceError(f"{folder} cannot be listed: {error}") from error
        return sorted(file.as_posix() for file in files if not file.name.startswith(_HALF))

    def address(self, bucket: str, key: str) -> str:
        return str(self._folder / bucket / key)


class S3Lake:
    """A lake on the S3 server at `endpoint`, with keys as in `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._s3 = s3_client(endpoint)

    def get(self, bucket: str, key: str) -> bytes | None:
        with self._named_errors(bucket, key):
            try:
                body: bytes = self._s3.get_object(Bucket=bucket, Key=key)["Body"].read()
            except (self._s3.exceptions.NoSuchKey, self._s3.exceptions.NoSuchBucket):
                return None
            return body

    def holds(self, bucket: str, key: str) -> bool:
        with self._named_errors(bucket, key):
            try:
                return self._s3.list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=1)["KeyCount"] > 0
            except self._s3.exceptions.NoSuchBucket:
                return False

    def put(self, bucket: str, key: str, content: bytes) -> None:
        with self._named_errors(bucket, key):
            try:
                self._s3.put_object(Bucket=bucket, Key=key, Body=content)
            except self._s3.exceptions.NoSuchBucket:
                create_bucket(self._s3, bucket)
                self._s3.put_object(Bucket=bucket, Key=key, Body=content)

    def keys(self, bucket: str) -> list[str]:
        with self._named_errors(bucket, ""):
            try:
                pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
                return sorted(found["Key"] for page in pages for found in page.get("Contents", ()))
            except self._s3.exceptions.NoSuchBucket:
                return []

    def address(self, bucket: str, key: str) -> str:
        return f"s3://{bucket}/{key}"

    @contextmanager
    def _named_errors(self, bucket: str, key: str) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except ClientError as error:
            raise SourceError(
                f"the S3 server at {self._endpoint} refused {self.address(bucket, key)}: {error}"
            ) from error
        except BotoCoreError as error:
            raise SourceUnavailable(
                f"the S3 server at {self._endpoint} cannot be reached ({error}); is it running?"
            ) from error


def s3_client(endpoint: str) -> "S3Client":
    """A client of the S3 server at `endpoint`, with time limits."""
    import boto3
    from botocore.config import Config

    config = Config(connect_timeout=5, read_timeout=30, retries={"max_attempts": 3})
    # Not boto3's default session, which keeps the first keys it reads for the whole process.
    return boto3.Session().client("s3", endpoint_url=endpoint, config=config)


def create_bucket(s3: "S3Client", bucket: str) -> None:
    """Create a bucket, unless it was created meanwhile: by another process, or by an attempt that got no answer."""
    with suppress(s3.exceptions.BucketAlreadyOwnedByYou):
        s3.create_bucket(Bucket=bucket)


def open_lake(settings: Settings) -> Lake:
    """The lake of this installation."""
    endpoint = settings.lake_endpoint or settings.s3_endpoint
    return S3Lake(endpoint) if endpoint else FolderLake(settings.home / "lake")
