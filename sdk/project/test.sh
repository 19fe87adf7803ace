#!/bin/sh
# Builds my-scheduler.wasm and tries it as the director will.
set -eu
cd "$(dirname "$0")"
sh build.sh
"${WVS:-wvs}" plugin check my-scheduler.wasm
