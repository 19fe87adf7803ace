#!/bin/sh
# Builds my-scheduler.wasm, tries it as the director will, and shows what it makes of simulated
# connections beside wlc, whose rule it has until you write your own.
set -eu
cd "$(dirname "$0")"
sh build.sh
"${WVS:-wvs}" plugin check my-scheduler.wasm
"${WVS:-wvs}" plugin simulate my-scheduler.wasm --against wlc
