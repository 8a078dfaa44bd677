#!/bin/sh
# Start tritonserver with the flags of server.args, in this folder, and the flags given.
#
#   STLAB_TRITON_KEY=… sh start.sh --model-repository=s3://bucket/prefix
#
# A given flag replaces those of its name in the file. STLAB_TRITON_KEY opens the restricted
# protocols (header triton-grpc-protocol-stlab by gRPC, stlab by HTTP).
set -euf
file=$(dirname "$0")/server.args
given_key=${STLAB_TRITON_KEY:-}
key=${given_key:-$(cat /proc/sys/kernel/random/uuid)}
flags=
while IFS= read -r flag || [ -n "$flag" ]; do
    case $flag in
        '' | '#'*) continue ;;
        *'{key}') flag=${flag%'{key}'}$key ;;
        *'{given-key}')
            [ -n "$given_key" ] || continue
            flag=${flag%'{given-key}'}$given_key
            ;;
    esac
    for given in "$@"; do
        [ "${given%%=*}" != "${flag%%=*}" ] || continue 2
    done
    flags="$flags $flag"
done < "$file"
unset STLAB_TRITON_KEY
# Flags have no spaces.
# shellcheck disable=SC2086
exec tritonserver $flags "$@"
