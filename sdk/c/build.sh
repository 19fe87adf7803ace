#!/bin/sh
# Builds my-scheduler.wasm. Needs clang and lld.
set -eu
cd "$(dirname "$0")"
# The stack comes first in memory: one that is exhausted traps, instead of writing into the regions.
clang --target=wasm32-unknown-unknown -std=c11 -O2 -ffreestanding -nostdlib -Wall -Wextra -Werror \
    -Wl,--no-entry -Wl,--strip-all -Wl,--stack-first -Wl,-z,stack-size=16384 \
    -o my-scheduler.wasm scheduler.c
