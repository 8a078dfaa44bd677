#!/bin/sh
# Build the images from the repository root, by hand and in CI.
#
#   deployment/docker/build.sh [--push] [api] [dashboard] [mlflow] [exporter]
#
# REGISTRY (host/owner, none by default) prefixes the names. VERSION (pyproject.toml's by default) is
# tag and label; REVISION (HEAD by default) is a label. BUILD_OPTIONS has further options of `docker
# buildx build`, such as --build-arg TRITON_DIGEST=@sha256:...
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
