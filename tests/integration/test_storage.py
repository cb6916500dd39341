"""Buckets and their users on a real MinIO: each user can use only its own buckets."""

from collections.abc import Callable
from functools import partial
from typing import Any
from uuid import uuid4

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from dosel.compose.storage import User, prepare
from dosel.embedded.local_servers import Minio
from dosel.errors import StartupError
from dosel.sources.lake import create_bucket

Client = Callable[[str, str], Any]


@pytest.fixture
def root(minio: Minio) -> tuple[str, str]:
    return minio.settings["AWS_ACCESS_KEY_ID"], minio.settings["AWS_SECRET_ACCESS_KEY"]


@pytest.fixture
def client(minio: Minio) -> Client:
    def connect(user: str, secret: str) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=minio.url,
            aws_access_key_id=user,
            aws_secret_access_key=secret,
            region_name="us-east-1",
            config=Config(retries={"max_attempts": 1}),
        )

    return connect


@pytest.fixture
def users() -> dict[User, str]:
    """Two users with separate buckets."""
    name = uuid4().hex[:12]
    return {User(f"{name}-{i}", (f"{name}-{i}a", f"{name}-{i}b")): f"secret-of-{i}" for i in range(2)}


def test_each_user_can_use_only_its_own_buckets(
    minio: Minio, root: tuple[str, str], client: Client, users: dict[User, str]
) -> None:
    prepare(minio.url, root, users)
    (one, other), secrets = users, list(users.values())
    s3 = client(one.name, secrets[0])
    for bucket in one.buckets:
        s3.put_object(Bucket=bucket, Key="a/b", Body=b"model")
        assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 1
        assert s3.get_object(Bucket=bucket, Key="a/b")["Body"].read() == b"model"
        s3.delete_object(Bucket=bucket, Key="a/b")
    for bucket in other.buckets:
        acts: list[Callable[[], Any]] = [
            partial(s3.put_object, Bucket=bucket, Key="a", Body=b""),
            partial(s3.list_objects_v2, Bucket=bucket),
            partial(s3.get_object, Bucket=bucket, Key="a"),
            partial(s3.delete_bucket, Bucket=bucket),
        ]
        for act in acts:
            with pytest.raises(ClientError, match="AccessDenied"):
                act()
    with pytest.raises(ClientError, match="AccessDenied"):
        create_bucket(s3, f"{one.name}-more")


def test_preparing_a_bucket_again_keeps_objects_and_changes_the_secret(
    minio: Minio, root: tuple[str, str], client: Client, users: dict[User, str]
) -> None:
    prepare(minio.url, root, users)
    user = next(iter(users))
    client(user.name, users[user]).put_object(Bucket=user.buckets[0], Key="kept", Body=b"x")
    prepare(minio.url, root, {user: "another-secret"})
    kept = client(user.name, "another-secret").get_object(Bucket=user.buckets[0], Key="kept")
    assert kept["Body"].read() == b"x"
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        client(user.name, users[user]).list_objects_v2(Bucket=user.buckets[0])


def test_a_wrong_password_is_an_error_with_the_address(
    minio: Minio, root: tuple[str, str], users: dict[User, str]
) -> None:
    with pytest.raises(StartupError, match=f"{minio.url} could not be prepared: .*SignatureDoesNotMatch"):
        prepare(minio.url, (root[0], "wrong-password"), users)
