"""An S3 server for tests: the one that the environment names, else moto's in a process of its own."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import boto3

from tests.files.servers import free_port, running

KEYS = {"AWS_ACCESS_KEY_ID": "loopback-access-key", "AWS_SECRET_ACCESS_KEY": "loopback-secret-key"}


class S3Server(NamedTuple):
    """A running S3 server.

    Args:
        endpoint: Its URL.
        bucket: A bucket to write to.
        environment: The credentials.
        real: Whether it is a store of its own, not moto's.
    """

    endpoint: str
    bucket: str
    environment: dict[str, str]
    real: bool

    def fresh_root(self) -> str:
        """Return the URI of a prefix that holds nothing."""
        return f"s3://{self.bucket}/{uuid4().hex}"

    def client(self) -> Any:  # boto3 has no types
        """Return Amazon's own client: what it sees is what is there."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=self.environment["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.environment["AWS_SECRET_ACCESS_KEY"],
            config=boto3.session.Config(s3={"addressing_style": "path"}, retries={"max_attempts": 2}),
        )


@contextmanager
def s3_running(folder: Path) -> Iterator[S3Server]:
    """Give an S3 server for the block.

    ``TREENAIL_S3_ENDPOINT``, ``TREENAIL_S3_BUCKET`` and the AWS keys name one that runs; `scripts/test-s3` sets them.
    """
    if endpoint := os.environ.get("TREENAIL_S3_ENDPOINT"):
        keys = {name: os.environ[name] for name in KEYS}
        yield S3Server(endpoint, os.environ["TREENAIL_S3_BUCKET"], keys, real=True)
        return
    port = free_port()
    command = (sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port))
    with running(command, port, log=folder / "moto.log", environment={**KEYS, "AWS_DEFAULT_REGION": "us-east-1"}):
        server = S3Server(f"http://127.0.0.1:{port}", "tests", KEYS, real=False)
        server.client().create_bucket(Bucket=server.bucket)
        yield server
