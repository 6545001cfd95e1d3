#!/usr/bin/env bash
# The driver programs against whatever PGHOST, PGPORT, PGDATABASE, PGUSER, PGPASSWORD, PGSSLMODE and PGSSLROOTCERT name.
#   run.sh prepare        build what needs building (venv, npm, Go) under target/drivers; safe to call again
#   run.sh run [NAME...]  run these drivers (default: all); ends non-zero if one fails
#   run.sh logins NAME    one login and SELECT current_user for each line of standard input, whose columns are separated
#                         by tabs: how (plain, tls, verified, bound, direct, newest, certificate, unix), folder of
#                         authority.crt, client.crt and client.key, host or socket folder, port, user, password,
#                         database, and all that as libpq's connection string. Answers with one line each:
#                         ok USER, or no SQLSTATE TEXT (- where the driver tells no SQLSTATE)
#   run.sh list           their names
# Needs Debian's psql, python3-venv, npm, golang-go with golang-github-lib-pq-dev and golang-github-jackc-pgx-v4-dev,
# a JDK and libpostgresql-jdbc-java.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
build="${CARGO_TARGET_DIR:-$here/../../target}/drivers"
all=(psql psycopg asyncpg pgjdbc node-postgres lib-pq pgx)

prepare_python() {
  cmp -s "$here/requirements.txt" "$build/venv/requirements.txt" && return
  /usr/bin/python3 -m venv --clear "$build/venv"
  "$build/venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"
  cp "$here/requirements.txt" "$build/venv/"
}

npm_install() {
  cmp -s "$here/$1/package.json" "$build/$1/installed.json" && return
  mkdir -p "$build/$1"
  cp "$here/$1/package.json" "$build/$1/"
  (cd "$build/$1" && npm install --no-audit --no-fund --loglevel=error >/dev/null)
  cp "$here/$1/package.json" "$build/$1/installed.json"
}

# Debian's Go libraries lie in a GOPATH; the build cache makes a second call quick.
prepare_go() {
  export GO111MODULE=off GOPATH=/usr/share/gocode GOFLAGS=-buildvcs=false GOCACHE="$build/gocache"
  go build -o "$build/bin/lib-pq" "$here/go/libpq/main.go"
  go build -o "$build/bin/pgx" "$here/go/pgx/main.go"
}

prepare_java() {
  mkdir -p "$build/java"
  [ "$build/java/Driver.class" -nt "$here/java/Driver.java" ] && return
  # Not what the locale says: on a bare machine that is ASCII.
  javac -encoding UTF-8 -cp /usr/share/java/postgresql.jar -d "$build/java" "$here/java/Driver.java"
}

run_one() {
  local name=$1
  shift
  case $name in
    psql) "$here/psql.sh" "$@" ;;
    psycopg) "$build/venv/bin/python" "$here/psycopg_driver.py" "$@" ;;
    asyncpg) "$build/venv/bin/python" "$here/asyncpg_driver.py" "$@" ;;
    pgjdbc) java -cp "/usr/share/java/postgresql.jar:$build/java" Driver "$@" ;;
    node-postgres) NODE_PATH="$build/node/node_modules" node "$here/node/driver.js" "$@" ;;
    lib-pq | pgx) "$build/bin/$name" "$@" ;;
    *) echo "run.sh: no driver is called $name (${all[*]})" >&2; return 2 ;;
  esac
}

case ${1:-} in
  prepare)
    mkdir -p "$build"
    prepare_python
    npm_install node
    # Servers that Debian does not have: postgres/node_modules/postgresql-VERSION/native/bin.
    npm_install postgres
    prepare_go
    prepare_java
    ;;
  run)
    shift
    [ $# -gt 0 ] || set -- "${all[@]}"
    failed=()
    for name in "$@"; do
      timeout 120 "$0" one "$name" </dev/null || failed+=("$name")
    done
    [ ${#failed[@]} -eq 0 ] || { echo "failed: ${failed[*]}" >&2; exit 1; }
    ;;
  one) run_one "$2" ;;
  logins) run_one "$2" logins ;;
  list) printf '%s\n' "${all[@]}" ;;
  *) sed -n '2,12s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
