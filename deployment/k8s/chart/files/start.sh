#!/bin/sh
# Start tritonserver with the flags of server.args, which lies beside this file, and those given.
#
#   STLAB_TRITON_KEY=… sh start.sh --model-repository=s3://bucket/prefix
#
# A flag that is given replaces the one in the file. STLAB_TRITON_KEY opens the restricted protocols
# (header triton-grpc-protocol-stlab by gRPC, stlab by HTTP); without one nobody can.
set -euf
file=$(dirname "$0")/server.args
if [ -z "${STLAB_TRITON_KEY:-}" ]; then
    STLAB_TRITON_KEY=$(cat /proc/sys/kernel/random/uuid)
fi
flags=
while IFS= read -r flag || [ -n "$flag" ]; do
    case $flag in
        '' | '#'*) continue ;;
        *'{key}') flag=${flag%'{key}'}$STLAB_TRITON_KEY ;;
    esac
    for given in "$@"; do
        [ "${given%%=*}" != "${flag%%=*}" ] || continue 2
    done
    flags="$flags $flag"
done < "$file"
unset STLAB_TRITON_KEY
# A list of words without blanks in them.
# shellcheck disable=SC2086
exec tritonserver $flags "$@"
