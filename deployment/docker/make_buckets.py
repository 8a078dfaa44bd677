# A script of an image, not a package.
# ruff: noqa: INP001, T201
"""Create the buckets of the Compose file's store; its service ``buckets`` runs this.

    make_buckets.py BUCKET[/PREFIX] ...

A prefix gets an empty object ``.keep``: Triton does not start without its repository, and
ignores files in it.
"""

from __future__ import annotations

import sys

import boto3
from botocore.exceptions import ClientError

_EXISTS = frozenset({"BucketAlreadyOwnedByYou", "BucketAlreadyExists"})


def main(places: list[str]) -> int:
    """Create what is missing; address and keys come from the environment."""
    store = boto3.client("s3")
    for place in places:
        bucket, _, prefix = place.partition("/")
        try:
            store.create_bucket(Bucket=bucket)
        except ClientError as error:
            if error.response["Error"]["Code"] not in _EXISTS:
                raise
        if prefix:
            store.put_object(Bucket=bucket, Key=f"{prefix}/.keep", Body=b"")
        print(f"{place}: exists", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
