#!/usr/bin/env bash
# Installs by apt what demo and tests need and this machine lacks, without starting the packages' services or
# clusters. Quiet unless there is something to do or it fails.
#
#   scripts/install.sh              PostgreSQL, Patroni, etcd, nftables
#   scripts/install.sh PACKAGE...   these packages too
set -euo pipefail

log=$(mktemp)
policy=/usr/sbin/policy-rc.d
cluster_conf=/etc/postgresql-common/createcluster.conf
policy_is_ours=
cluster_conf_backup=

main() {
    local missing=() package
    trap restore EXIT
    [ -n "$(compgen -G '/usr/lib/postgresql/*/bin/initdb')" ] || missing+=(postgresql)
    command -v psql >/dev/null || missing+=(postgresql-client)
    [ -x /usr/bin/patroni ] || missing+=(patroni)
    command -v etcd >/dev/null || missing+=(etcd-server)
    command -v etcdctl >/dev/null || missing+=(etcd-client)
    /usr/bin/python3 -c 'import etcd' 2>/dev/null || missing+=(python3-etcd)
    # In sbin, which is not in everybody's path.
    [ -x /usr/sbin/nft ] || missing+=(nftables)
    command -v cc >/dev/null || missing+=(build-essential)
    for package in "$@"; do
        installed "$package" || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0

    command -v apt-get >/dev/null || fail "this machine has no apt; install by hand: ${missing[*]}"
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || fail "to install as root: apt-get install ${missing[*]}"
        sudo -v || fail "to install as root: apt-get install ${missing[*]}"
    fi
    echo "installing by apt: ${missing[*]}" >&2
    hold_services
    quietly as_root apt-get -q update
    if [[ " ${missing[*]} " == *" postgresql "* ]]; then
        # Its configuration must be there before the server package looks at it.
        apt_install postgresql-common
        hold_cluster
    fi
    apt_install "${missing[@]}"
    disable_services "${missing[@]}"
}

installed() {
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

apt_install() {
    quietly as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends \
        -o DPkg::Lock::Timeout=120 -o Dpkg::Options::=--force-confold install "$@"
}

# No service starts while the packages are unpacked. An administrator's own policy stays.
hold_services() {
    [ ! -e "$policy" ] || return 0
    policy_is_ours=yes
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod 755 "$policy"
}

# The server package would make and register a cluster of its own on port 5432.
hold_cluster() {
    [ -e "$cluster_conf" ] || return 0
    cluster_conf_backup=$(mktemp)
    cat "$cluster_conf" >"$cluster_conf_backup"
    as_root sed -i -e '/^ *create_main_cluster\b/d' -e "\$a create_main_cluster = false" "$cluster_conf"
}

# Not at the next boot either. (postgresql starts only clusters that exist.)
disable_services() {
    command -v systemctl >/dev/null || return 0
    local package unit
    for package in "$@"; do
        case $package in postgresql*) continue ;; esac
        for unit in $(dpkg -L "$package" 2>/dev/null | sed -n 's|.*/systemd/system/\([^/@]*\.service\)$|\1|p'); do
            as_root systemctl -q disable "$unit" >>"$log" 2>&1 || true
        done
    done
}

restore() {
    [ -z "$policy_is_ours" ] || as_root rm -f "$policy"
    if [ -n "$cluster_conf_backup" ]; then
        as_root tee "$cluster_conf" <"$cluster_conf_backup" >/dev/null
        rm -f "$cluster_conf_backup"
    fi
    rm -f "$log"
}

quietly() {
    "$@" >>"$log" 2>&1 </dev/null || {
        tail -n 25 "$log" >&2
        fail "failed: $*"
    }
}

fail() {
    echo "scripts/install.sh: $*" >&2
    exit 1
}

main "$@"
