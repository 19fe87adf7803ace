#!/bin/bash
# Installs, runs, upgrades and removes the Debian package in a system of its own, with systemd as its first
# process, and says what it found.
#
#   packaging/test-deb.sh [--binary FILE]
#
# Ends with status 77 where no system can be started within this one.
#
# Wants root, debootstrap and a Debian mirror, systemd-nspawn (systemd-container), cargo-deb and dpkg-dev, and
# /dev/net/tun. The first run makes the system in target/package-test/root, some 300 MB; no run changes it, nor
# anything of this host. It takes a minute and a half, and half of that from the second run on.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD/target/package-test/root
folder=$(mktemp -d)
container=

finish() {
    local code=$?
    if [ $code != 0 ] && [ -n "$container" ]; then
        echo "--- the log of wvs" >&2
        within journalctl --no-pager -u wvs >&2 || true
        within systemctl status --no-pager wvs >&2 || true
    fi
    if [ -n "$container" ]; then
        kill -KILL "${leader:-$container}" 2>/dev/null || true
        wait "$container" 2>/dev/null || true
    fi
    rm -rf "$folder"
    [ $code = 0 ] || echo "FAILED: $step" >&2
}
trap finish EXIT

step=start
step() { step=$*; printf '%4d s  %s\n' "$SECONDS" "$*"; }
within() { nsenter --target "$leader" --mount --uts --ipc --net --pid --cgroup -- "$@"; }
until_so() {
    for _ in $(seq 200); do
        if "$@" >/dev/null 2>&1; then return; fi
        sleep 0.1
    done
    echo "never came to be: $*" >&2
    return 1
}
cannot_start() {
    cat "$folder/console" >&2
    exit 77
}
is() { [ "$1" = "$2" ] || { echo "it is '$1', not '$2'" >&2; return 1; }; }
# What systemd says about the service.
property() { within systemctl show wvs --property "$1" --value; }
is_restarted() { is "$(property NRestarts)" "$1" && is "$(property ActiveState)" active; }

if [ ! -e "$root/etc/debian_version" ]; then
    step "making a Debian system"
    rm -rf "$root"
    mkdir -p "$root"
    debootstrap --variant=minbase --include=init-system-helpers,iproute2,iputils-ping,man-db,systemd \
        bookworm "$root" >"$folder/debootstrap.log" || { tail "$folder/debootstrap.log" >&2; exit 1; }
fi

step "building two versions of the package"
packaging/build-deb.sh "$@" --quiet --fast --deb-version 1.0 -o "$folder/old.deb" >/dev/null
cp target/package/wvs "$folder/wvs"
packaging/build-deb.sh --binary "$folder/wvs" --quiet --fast --deb-version 1.1 -o "$folder/new.deb" >/dev/null

step "starting the system"
systemd-nspawn --quiet --directory "$root" --volatile=overlay --boot --register=no --keep-unit \
    --private-network --capability=CAP_BPF,CAP_NET_ADMIN --system-call-filter=bpf \
    --bind=/dev/net/tun --bind-ro="$folder:/mnt" </dev/null >"$folder/console" 2>&1 &
container=$!
leader=
until_so pgrep -P "$container" || cannot_start
leader=$(pgrep -P "$container")
until_so within systemctl is-active multi-user.target || cannot_start
within chmod 666 /dev/net/tun # as udev has it
within ip link add eth1 type veth peer name server
within ip link add eth0 type veth peer name client
within ip netns add client
within ip link set client netns client
for link in lo eth0 eth1 server; do within ip link set "$link" up; done
within ip address add 192.0.2.1/24 dev eth1
within ip address add 198.51.100.1/24 dev eth0
within ip -n client link set client up
within ip -n client address add 198.51.100.7/24 dev client
within ip -n client route add default via 198.51.100.1
rules=$(within ip rule)
forward=$(within cat /proc/sys/net/ipv4/ip_forward)

step "installing: nothing is started"
within dpkg -i /mnt/old.deb >/dev/null
is "$(property ActiveState)" inactive
is "$(property UnitFileState)" disabled
within wvs check -c /etc/wvs/wvs.yaml >/dev/null
within man -w wvs-run >/dev/null
within getent passwd wvs >/dev/null
within systemd-analyze verify wvs.service
exposure=$(within systemd-analyze security --no-pager wvs | tail -1)

step "starting: it is ready when systemd says so"
within systemctl enable --now wvs
is "$(property ActiveState)" active
begun=$(property InactiveExitTimestampMonotonic)
ready=$(($(property ActiveEnterTimestampMonotonic) - begun))
is "$(property StatusText)" "1 service, 2 real servers"
within wvs list >/dev/null
within ip netns exec client ping -c 1 -W 5 203.0.113.10 >/dev/null
pid=$(property MainPID)
is "$(within grep CapEff "/proc/$pid/status" | cut -f2)" 0000008000001400
is "$(within stat -c %U:%G:%a /run/wvs/wvs.sock)" wvs:wvs:660
within journalctl -u wvs -o cat PRIORITY=6 | grep -q "^ready version="

step "who may use the control socket"
within setpriv --reuid 65534 --regid 65534 --groups "$(within getent group wvs | cut -d: -f3)" wvs list >/dev/null
if within setpriv --reuid 65534 --regid 65534 --clear-groups wvs list 2>/dev/null; then
    echo "everybody may" >&2
    exit 1
fi

step "reloading"
within sed -i 's/scheduler: wlc/scheduler: rr/' /etc/wvs/wvs.yaml
within systemctl reload wvs
within wvs list | grep -q "203.0.113.10:80 rr"
within sh -c 'echo "connection_log: { file: /var/log/wvs/connections.log }" >>/etc/wvs/wvs.yaml'
within systemctl reload wvs
is "$(within stat -c %U:%G:%a /var/log/wvs/connections.log)" wvs:wvs:640
within cp /etc/wvs/wvs.yaml /tmp/good.yaml
within sed -i 's/scheduler: rr/scheduler: nonsense/' /etc/wvs/wvs.yaml
if within systemctl reload wvs 2>/dev/null; then
    echo "a bad file was reloaded" >&2
    exit 1
fi
is "$(property ActiveState)" active
within cp /tmp/good.yaml /etc/wvs/wvs.yaml
within systemctl kill --kill-who=main --signal=HUP wvs
until_so within systemctl is-active wvs # not reloading
within wvs plugin swap example wlc >/dev/null

step "a director that was killed, and one that hangs, are started again"
within mkdir -p /run/systemd/system/wvs.service.d
within sh -c 'printf "[Service]\nWatchdogSec=1s\nTimeoutAbortSec=1s\nRestartSec=100ms\n" \
    >/run/systemd/system/wvs.service.d/test.conf'
within systemctl daemon-reload
within systemctl restart wvs
within systemctl kill --kill-who=main --signal=KILL wvs
until_so is_restarted 1
within systemctl kill --kill-who=main --signal=STOP wvs
until_so is_restarted 2
within ip netns exec client ping -c 1 -W 5 203.0.113.10 >/dev/null
within journalctl -u wvs -o cat | grep -q "Watchdog timeout"

step "upgrading: the running one is replaced, the configuration stays"
before=$(property MainPID)
within dpkg -i /mnt/new.deb >/dev/null
is "$(property ActiveState)" active
[ "$(property MainPID)" != "$before" ]
within wvs list | grep -q "203.0.113.10:80 rr"

step "removing: the host is as it was, the configuration stays"
within dpkg -r wvs >/dev/null
is "$(within systemctl is-active wvs || true)" inactive
is "$(within ip rule)" "$rules"
is "$(within cat /proc/sys/net/ipv4/ip_forward)" "$forward"
is "$(within ls /etc/wvs)" wvs.yaml
if within ip link show wvs0 2>/dev/null; then exit 1; fi

step "purging: nothing is left"
within dpkg --purge wvs >/dev/null 2>&1
for path in /etc/wvs /run/wvs /usr/bin/wvs /var/log/wvs; do
    if within test -e "$path"; then
        echo "$path is left" >&2
        exit 1
    fi
done

step "done; ready $ready us after systemd began to start it; $exposure"
