# A program that an image runs, no package.
# ruff: noqa: INP001, T201
"""Make the buckets of the Compose file's store, once; run by its service ``buckets``.

    make_buckets.py BUCKET[/PREFIX] ...

A prefix gets an empty object ``.keep``: Triton does not start on a repository that is not there,
and takes only folders for models.
"""

from __future__ import annotations

import sys

import boto3
from botocore.exceptions import ClientError

_THERE = frozenset({"BucketAlreadyOwnedByYou", "BucketAlreadyExists"})


def main(places: list[str]) -> int:
    """Make what is missing; the address and the keys are those of the environment."""
    store = boto3.client("s3")
    for place in places:
        bucket, _, prefix = place.partition("/")
        try:
            store.create_bucket(Bucket=bucket)
        except ClientError as error:
            if error.response["Error"]["Code"] not in _THERE:
                raise
        if prefix:
            store.put_object(Bucket=bucket, Key=f"{prefix}/.keep", Body=b"")
        print(f"{place}: there", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
