#!/bin/sh
# Tests the rule by itself, then builds my-scheduler.wasm and tries it as the director will.
set -eu
cd "$(dirname "$0")"
cargo test --target-dir target
sh build.sh
"${WVS:-wvs}" plugin check my-scheduler.wasm
