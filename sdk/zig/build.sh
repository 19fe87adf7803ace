#!/bin/sh
# Builds my-scheduler.wasm. Needs Zig.
set -eu
cd "$(dirname "$0")"
zig build-exe scheduler.zig -target wasm32-freestanding -O ReleaseSmall -fno-entry -rdynamic \
    --stack 16384 -femit-bin=my-scheduler.wasm
