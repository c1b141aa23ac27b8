#!/usr/bin/env bash
# Makes the Python side of the protocol from proto/fedstep/v1/*.proto, in place or under the folder given.
# grpcio-tools is pinned to 1.81.1 in constraints.txt: what it makes loads on protobuf 6 and 7.
set -euo pipefail
cd "$(dirname "$0")"
out=${1:-.}
mkdir -p "$out"
python -m grpc_tools.protoc -I . \
  --python_out="$out" --grpc_python_out="$out" --mypy_out=quiet:"$out" --mypy_grpc_out=quiet:"$out" \
  fedstep/v1/*.proto
