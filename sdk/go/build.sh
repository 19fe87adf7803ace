#!/bin/sh
# Builds my-scheduler.wasm. Needs Go.
set -eu
cd "$(dirname "$0")"
GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -trimpath -ldflags='-s -w' \
    -o my-scheduler.wasm .
