#!/bin/sh
# Builds my-scheduler.wasm. Needs Rust with its WebAssembly target, which comes with
# `rustup target add wasm32-unknown-unknown`.
set -eu
cd "$(dirname "$0")"
cargo build --release --target wasm32-unknown-unknown --target-dir target
cp target/wasm32-unknown-unknown/release/scheduler.wasm my-scheduler.wasm
