"""Creates the S3 server's buckets and two users, each with access to its own buckets."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import urllib3
from minio import Minio
from minio.credentials.providers import StaticProvider
from minio.error import MinioException
from minio.minioadmin import MinioAdmin

from dosel.errors import StartupError
from dosel.sources.lake import DATA, HEADS, PROCESSED, TRAINING_ROWS

CONNECT_SECONDS, ANSWER_SECONDS, TRIES = 5, 20, 5


@dataclass(frozen=True)
class User:
    """A user of the S3 server who may read objects in these buckets only, and write and delete them if `writes`."""

    name: str
    buckets: tuple[str, ...]
    writes: bool = True


MLFLOW = User("mlflow", ("mlflows3",))
"""MLflow's server, which proxies all access to artifacts."""

PIPELINE = User("pipeline", (DATA, PROCESSED, TRAINING_ROWS, HEADS))
"""The tasks in Airflow's workers."""

CLUSTER = User("dask", (TRAINING_ROWS,), writes=False)
"""The workers of the Dask cluster."""


def prepare(endpoint: str, root: tuple[str, str], secrets: Mapping[User, str]) -> None:
    """Create buckets, users and policies, or update them. Called again, it changes nothing.

    Args:
        endpoint: URL of the server.
        root: name and password of its administrator.
        secrets: each user's secret key.

    Raises:
        StartupError: the server cannot be reached, or refuses.
    """
    parts = urlsplit(endpoint)
    secure = parts.scheme == "https"
    pool = urllib3.PoolManager(
        timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=ANSWER_SECONDS),
        retries=urllib3.Retry(total=TRIES, backoff_factor=0.5, status_forcelist=(500, 502, 503, 504)),
    )
    s3 = Minio(parts.netloc, *root, secure=secure, http_client=pool)
    admin = MinioAdmin(endpoint=parts.netloc, credentials=StaticProvider(*root), secure=secure, http_client=pool)
    try:
        for user, secret in secrets.items():
            for bucket in user.buckets:
                if not s3.bucket_exists(bucket):
                    s3.make_bucket(bucket)
            admin.policy_add(user.name, policy=_policy(user))
            admin.user_add(user.name, secret)
            admin.policy_set(user.name, user=user.name)
    except (MinioException, urllib3.exceptions.HTTPError) as error:
        raise StartupError(f"the S3 server at {endpoint} could not be prepared: {error}") from error


def _policy(user: User) -> dict[str, Any]:
    """The user's policy, in AWS's policy language."""
    buckets = [f"arn:aws:s3:::{bucket}" for bucket in user.buckets]
    on_buckets = ["s3:ListBucket", "s3:GetBucketLocation", "s3:ListBucketMultipartUploads"]
    on_objects = ["s3:GetObject"]
    if user.writes:
        on_objects += ["s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"]
    return {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": on_buckets, "Resource": buckets},
            {"Effect": "Allow", "Action": on_objects, "Resource": [f"{bucket}/*" for bucket in buckets]},
        ],
    }
