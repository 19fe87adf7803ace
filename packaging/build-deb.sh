#!/bin/sh
# Builds the Debian package and prints where it is.
#
#   packaging/build-deb.sh [--binary FILE] [ARGUMENT OF CARGO DEB]..
#
# Wants `cargo install cargo-deb`, and dpkg-dev. With --binary it takes a program that is built already.
set -eu
cd "$(dirname "$0")/.."
root=$PWD
export CARGO_TARGET_DIR="$root/target"

if [ "${1:-}" = --binary ]; then
    binary=$2
    shift 2
else
    cargo build --release --locked -p wvs >&2
    binary=target/release/wvs
fi

package=target/package
rm -rf "$package"
mkdir -p "$package"
strip -o "$package/wvs" "$binary"
"$package/wvs" manuals "$package/man"
for shell in bash fish zsh; do
    "$package/wvs" completions "$shell" >"$package/wvs.$shell"
done
cargo deb -p wvs --no-build --no-strip "$@"
