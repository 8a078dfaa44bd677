#!/bin/sh
# Build the images from the repository root; a person and CI run the same.
#
#   deployment/docker/build.sh [--push] [api] [dashboard] [mlflow] [exporter]
#
# REGISTRY (host/owner, none by default) goes before their names. VERSION (pyproject.toml's by
# default) is their tag and label; REVISION (HEAD by default) a label. Further options of
# `docker buildx build`, such as --build-arg TRITON_DIGEST=@sha256:..., go into BUILD_OPTIONS.
set -eu
cd "$(dirname "$0")/../.."

output=--load
if [ "${1:-}" = --push ]; then
    output=--push
    shift
fi
[ $# -gt 0 ] || set -- api dashboard mlflow exporter

: "${VERSION:=$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml)}"
: "${REVISION:=$(git rev-parse HEAD)}"
: "${SOURCE:=$(git config --get remote.origin.url || true)}"

for name in "$@"; do
    # BUILD_OPTIONS is a list of words.
    # shellcheck disable=SC2086
    docker buildx build $output ${BUILD_OPTIONS:-} \
        --file "deployment/docker/$name.Dockerfile" \
        --tag "${REGISTRY:+$REGISTRY/}stlab-$name:$VERSION" \
        --build-arg "VERSION=$VERSION" \
        --build-arg "REVISION=$REVISION" \
        --build-arg "SOURCE=$SOURCE" \
        .
done
