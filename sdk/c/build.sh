#!/bin/sh
# Builds my-scheduler.wasm. Needs clang and lld.
set -eu
cd "$(dirname "$0")"
# There is no C library: with bulk memory, copying a structure needs none. The stack comes first in
# memory, so that one that is exhausted traps instead of writing into the regions.
clang --target=wasm32-unknown-unknown -mbulk-memory -std=c11 -O2 -ffreestanding -nostdlib \
    -Wall -Wextra -Werror \
    -Wl,--no-entry -Wl,--strip-all -Wl,--stack-first -Wl,-z,stack-size=16384 \
    -o my-scheduler.wasm scheduler.c
