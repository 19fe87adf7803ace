#!/bin/sh
# Builds my-scheduler.wasm. Needs wat2wasm, of the WebAssembly binary toolkit.
set -eu
cd "$(dirname "$0")"
wat2wasm scheduler.wat -o my-scheduler.wasm
