#!/usr/bin/env bash
# PostgreSQL's own regression suite, directly and through weir in session mode, and its libpq_pipeline program, directly
# and through weir in both modes, on the PostgreSQL installed here. Prints a table; fails if anything that passes
# directly does not pass through weir.
#   scripts/regress.sh [--runs N] [--pool-size N] [--weir PATH] [--work FOLDER]
#     --runs N        times through weir (default 1)
#     --pool-size N   server connections weir may open (default 20)
#     --weir PATH     this binary; else target/debug/weir is built
#     --work FOLDER   keep sources, builds and results here, and use them again (default: a folder that is removed)
# Not part of CI: fetching and building PostgreSQL's sources and three runs of its suite take three to ten minutes.
# What is missing is installed by apt; the sources come from where apt has the installed package from.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

runs=1
pool_size=20
weir=
work=
pids=()

main() {
    options "$@"
    trap clean_up EXIT
    scripts/install.sh dpkg-dev bison flex perl
    [ -n "$weir" ] || { cargo build --quiet --locked -p weir && weir=$PWD/target/debug/weir; }
    major=$(find /usr/lib/postgresql -mindepth 1 -maxdepth 1 -printf '%f\n' | sort -n | tail -n 1)
    bin=/usr/lib/postgresql/$major/bin
    # PostgreSQL refuses to run as root.
    as_postgres=()
    [ "$(id -u)" != 0 ] || as_postgres=(setpriv --reuid=postgres --regid=postgres --init-groups --)
    prepare_work
    fetch_sources
    build
    compare
}

options() {
    while [ $# -gt 0 ]; do
        case $1 in
        --runs | --pool-size) [[ ${2:-} =~ ^[1-9][0-9]*$ ]] || usage ;;&
        --runs) runs=$2 ;;
        --pool-size) pool_size=$2 ;;
        --weir) weir=$(realpath "${2:-}") ;;
        --work) keep=yes work=${2:?} ;;
        *) usage ;;
        esac
        shift 2
    done
}

usage() {
    sed -n '2,11s/^# \{0,1\}//p' "$0" >&2
    exit 2
}

prepare_work() {
    if [ -n "$work" ]; then mkdir -p "$work"; else work=$(mktemp -d); fi
    work=$(realpath "$work")
    chmod 755 "$work"
    rm -rf "$work/results"
    mkdir "$work/results"
    [ ${#as_postgres[@]} = 0 ] || chown postgres "$work/results"
    "${as_postgres[@]}" test -r "$work" || fail "user postgres cannot read $work: choose another --work"
}

# The sources of exactly the installed version, with apt's lists and caches in a folder of their own: the machine's
# lists stay as they are.
fetch_sources() {
    source_tree=$(find "$work" -maxdepth 1 -type d -name 'postgresql-*')
    [ -z "$source_tree" ] || return 0
    local package=postgresql-$major apt=$work/apt uris file version
    version=$(dpkg-query -W -f '${source:Version}' "$package")
    # shellcheck disable=SC2016 # the format is awk's
    uris=$(apt-cache madison "$package" |
        awk -F ' *[|] *' -v version="$version" '$2 == version { split($3, part, " "); print part[1] }' | sort -u)
    [ -n "$uris" ] || fail "apt does not know where $package $version comes from: apt-get update and upgrade it first"
    say "fetching the sources of $package $version"
    mkdir -p "$apt/sources.list.d" "$apt/lists/partial" "$apt/archives/partial"
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*; do
        grep -qsF "$uris" "$file" || continue
        case $file in
        *.sources) sed 's/^Types:.*/Types: deb-src/' "$file" >"$apt/sources.list.d/${file##*/}" ;;
        *.list) sed -n 's/^deb\([[:space:]]\)/deb-src\1/p' "$file" >"$apt/sources.list.d/${file##*/}" ;;
        esac
    done
    apt_here=(-q -o "Dir::Etc::sourcelist=/dev/null" -o "Dir::Etc::sourceparts=$apt/sources.list.d"
        -o "Dir::State::lists=$apt/lists" -o "Dir::Cache=$apt" -o APT::Sandbox::User=root)
    quietly fetch apt-get "${apt_here[@]}" update
    (cd "$work" && quietly fetch apt-get "${apt_here[@]}" source "$package=$version")
    source_tree=$(find "$work" -maxdepth 1 -type d -name 'postgresql-*')
}

# The suite's libraries for the server, and the program; the server, psql and pg_regress are the installed ones.
build() {
    pg_regress=/usr/lib/postgresql/$major/lib/pgxs/src/test/regress/pg_regress
    suite=$source_tree/src/test/regress
    pipeline=$source_tree/src/test/modules/libpq_pipeline
    [ ! -e "$work/built" ] || return 0
    say "building $(basename "$source_tree")'s tests"
    cd "$source_tree"
    quietly build ./configure --without-readline --without-zlib --without-icu
    quietly build make -j "$(nproc)" -C src/backend generated-headers
    quietly build make -j "$(nproc)" -C src/test/regress
    quietly build make -j "$(nproc)" -C src/interfaces/libpq
    quietly build make -C src/test/modules/libpq_pipeline
    cd - >/dev/null
    touch "$work/built"
}

# A table, one line per run: name, how many passed of how many, what failed.
compare() {
    local run
    differences=0
    printf '%-40s %9s  %s\n' run passed failed
    regression direct "regression suite, directly" server
    pipelines direct "libpq_pipeline, directly" server
    for run in $(seq "$runs"); do
        regression "session$run" "regression suite, session mode ($run)" weir session
        pipelines "session$run" "libpq_pipeline, session mode ($run)" weir session
        pipelines "transaction$run" "libpq_pipeline, transaction mode ($run)" weir transaction
    done
    [ "$differences" = 0 ] || fail "$differences results differ from PostgreSQL's own${keep:+: see $work/results}"
}

# regression NAME TITLE server|weir [MODE]
regression() {
    local out=$work/results/regression.$1 log=$work/results/regression.$1.log
    start "$3" "${4:-}"
    "${as_postgres[@]}" mkdir "$out"
    (cd "$suite" && "${as_postgres[@]}" env PATH="$bin:$PATH" "$pg_regress" --bindir="$bin" --host=127.0.0.1 \
        --port="$port" --user=postgres --inputdir="$suite" --outputdir="$out" --dlpath="$suite" \
        --schedule="$suite/parallel_schedule" --max-concurrent-tests=20) >"$log" 2>&1 || true
    stop
    # Before PostgreSQL 16, and since.
    sed -nE -e 's/^(test)? +([a-z0-9_.]+) +\.\.\. (ok|FAILED) .*/\2 \3/p' \
        -e 's/^ok [0-9]+ +[-+] ([a-z0-9_.]+) .*/\1 ok/p' -e 's/^not ok [0-9]+ +[-+] ([a-z0-9_.]+) .*/\1 FAILED/p' \
        "$log" >"$out.verdicts"
    report regression "$1" "$2"
}

# pipelines NAME TITLE server|weir [MODE]
pipelines() {
    local out=$work/results/pipelines.$1 name
    start "$3" "${4:-}"
    mkdir "$out"
    for name in $("$pipeline/libpq_pipeline" tests); do
        echo "$name $(pipeline_test "$name" "$out")"
    done >"$out.verdicts"
    stop
    report pipelines "$1" "$2"
}

# As its TAP test does: it must succeed and, where there is a trace to compare with, what libpq sent and got is the same.
pipeline_test() {
    local trace=$2/$1.trace expected=$pipeline/traces/$1.trace arguments=(-r 700)
    [ ! -e "$expected" ] || arguments+=(-t "$trace")
    timeout 60 "$pipeline/libpq_pipeline" "${arguments[@]}" "$1" \
        "host=127.0.0.1 port=$port user=postgres dbname=postgres" >"$2/$1.log" 2>&1 || { echo FAILED; return; }
    [ ! -e "$expected" ] || cmp -s "$trace" "$expected" || { echo FAILED; return; }
    echo ok
}

# report KIND NAME TITLE: a line of the table; counts what failed here and not directly, or is missing here.
report() {
    local here=$work/results/$1.$2.verdicts direct=$work/results/$1.direct.verdicts worse
    [ -s "$here" ] || fail "no result of $3: see $work/results"
    printf '%-40s %9s  %s\n' "$3" "$(grep -c ' ok$' "$here")/$(wc -l <"$here")" \
        "$(sed -n 's/ FAILED$//p' "$here" | paste -sd ' ')"
    worse=$(grep ' ok$' "$direct" | sort | comm -23 - <(sort "$here") | wc -l)
    differences=$((differences + worse))
}

# start server|weir [MODE]: a fresh PostgreSQL, and weir in front of it; `port` is where clients go.
start() {
    local data=$work/data
    data_port=$(free_port)
    rm -rf "$data"
    "${as_postgres[@]}" mkdir "$work/results/sockets.$data_port"
    install -d ${as_postgres:+-o postgres -g postgres} -m 700 "$data"
    quietly server "${as_postgres[@]}" "$bin/initdb" -D "$data" -U postgres --auth=trust --no-locale --encoding=UTF8 --no-sync
    (cd / && exec "${as_postgres[@]}" "$bin/postgres" -D "$data" -h 127.0.0.1 -p "$data_port" -F \
        -k "$work/results/sockets.$data_port" -c max_connections=100) >>"$work/results/postgres.log" 2>&1 &
    pids+=($!)
    await "$data_port"
    port=$data_port
    [ "$1" = weir ] || return 0
    port=$(free_port)
    # Clients that wait would be told so, and the suite compares notices, too.
    printf '[pool]\nquery_wait_notify = 0\n' >"$work/weir.toml"
    "$weir" "$work/weir.toml" --upstream "postgres://127.0.0.1:$data_port" --auth-type trust --pool-mode "$2" \
        --pool-size "$pool_size" --write-listen "127.0.0.1:$port" --read-listen "127.0.0.1:$(free_port)" \
        --http-listen "127.0.0.1:$(free_port)" >>"$work/results/weir.log" 2>&1 &
    pids+=($!)
    await "$port"
}

# Last started, first ended: weir before its server. QUIT is "at once" for both.
stop() {
    local i
    for ((i = ${#pids[@]} - 1; i >= 0; i--)); do
        kill -QUIT "${pids[i]}" 2>/dev/null || true
        wait "${pids[i]}" 2>/dev/null || true
    done
    pids=()
}

free_port() {
    local candidate
    for candidate in $(shuf -i 20000-32000 -n 50); do
        (exec 3<>"/dev/tcp/127.0.0.1/$candidate") 2>/dev/null || { echo "$candidate"; return; }
    done
    fail "no free port"
}

await() {
    local i
    for ((i = 0; i < 600; i++)); do
        "$bin/pg_isready" -q -h 127.0.0.1 -p "$1" -U postgres -d postgres && return
        sleep 0.1
    done
    fail "nobody answers on port $1: see $work/results"
}

quietly() {
    local log=$work/$1.log
    shift
    "$@" >>"$log" 2>&1 </dev/null || {
        tail -n 25 "$log" >&2
        fail "failed: $*"
    }
}

clean_up() {
    local status=$?
    stop
    if [ -z "${keep:-}" ] && [ -n "$work" ]; then rm -rf "$work"; fi
    exit "$status"
}

say() { printf '%s (%d s)\n' "$1" "$SECONDS" >&2; }

fail() {
    echo "scripts/regress.sh: $*" >&2
    exit 1
}

main "$@"
