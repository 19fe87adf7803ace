#!/bin/sh
# Builds my-scheduler.wasm. Needs AssemblyScript's compiler, asc.
set -eu
cd "$(dirname "$0")"
asc scheduler.ts --runtime stub -O3 --noAssert --use abort= -o my-scheduler.wasm
