#!/usr/bin/env bash
# psql: what a person types. Reads PGHOST, PGPORT, PGDATABASE, PGUSER, PGPASSWORD, PGSSLMODE, PGSSLROOTCERT.
# psql 15 speaks only the simple protocol, so its prepared statements are SQL ones, each inside one transaction.
#   psql.sh logins        one login for each line of standard input, see run.sh
set -euo pipefail

# psql tells no SQLSTATE when a connection fails.
logins() {
  local words said
  while IFS=$'\t' read -r _ _ _ _ _ _ _ words; do
    if said=$(psql -XAtqw "$words" -c "SELECT current_user" 2>&1 </dev/null); then
      printf 'ok\t%s\n' "$said"
    else
      printf 'no\t-\t%s\n' "${said//[$'\t\n']/ }"
    fi
  done
}
if [ "${1:-}" = logins ]; then
  logins
  exit
fi

fail() { echo "psql: $*" >&2; exit 1; }
ask() { psql -XAtq -v ON_ERROR_STOP=1 "$@"; }
want() { [ "$2" = "$3" ] || fail "$1: got '$2', want '$3'"; }

table="driver_psql"
ask -c "SET LOCAL client_min_messages = warning; DROP TABLE IF EXISTS $table" -c "CREATE TABLE $table (id int PRIMARY KEY, note text)"

got=$(ask -v n=41 -v text="it's œ" <<<"SELECT :n::int + 1 || ' ' || :'text'")
want "client-side parameters" "$got" "42 it's œ"

ask -c 'BEGIN' -c "INSERT INTO $table VALUES (1, 'kept')" -c 'COMMIT'
ask -c 'BEGIN' -c "INSERT INTO $table VALUES (2, 'lost')" -c 'ROLLBACK'
want "commit and rollback" "$(ask -c "SELECT string_agg(note, ',') FROM $table")" "kept"

prepared_loop() {
  local k=$1 i script=""
  for i in $(seq 1 20); do
    script+="BEGIN; PREPARE same_name(int) AS SELECT \$1 * $k; EXECUTE same_name($i); DEALLOCATE same_name; COMMIT;"$'\n'
  done
  local got want
  got=$(ask <<<"$script" | paste -sd' ') || return 1
  want=$(for i in $(seq 1 20); do echo $((i * k)); done | paste -sd' ')
  want "prepared loop $k" "$got" "$want"
}
loops=()
for k in 1 2 3 4 5 6; do prepared_loop "$k" & loops+=($!); done
for pid in "${loops[@]}"; do wait "$pid" || fail "a prepared loop failed"; done

seq 100 299 | sed 's/$/\trow/' | ask -c "\\copy $table FROM STDIN"
want "copy in" "$(ask -c "SELECT count(*), sum(id) FROM $table WHERE note = 'row'")" "200|39900"
want "copy out" "$(ask -c "\\copy (SELECT id FROM $table WHERE id >= 100 ORDER BY id) TO STDOUT" | wc -l)" "200"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
marker="cancel marker $$ $RANDOM"
psql -XAtq <<<"SELECT pg_sleep(60) /* $marker */" >/dev/null 2>"$work/err" &
sleeper=$!
for _ in $(seq 1 400); do
  seen=$(ask -c "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%sleep(60) /* $marker%' AND pid <> pg_backend_pid()")
  [ "$seen" = 1 ] && break
done
[ "$seen" = 1 ] || { kill "$sleeper"; fail "pg_sleep never showed in pg_stat_activity"; }
kill -INT "$sleeper"
wait "$sleeper" || true
grep -q 'canceling statement due to user request' "$work/err" || fail "cancel: $(cat "$work/err")"
want "after the cancel" "$(ask -c 'SELECT 1')" "1"

ask -c "DROP TABLE $table"
echo "ok psql $(psql --version | grep -oE '[0-9]+\.[0-9]+' | head -1)"
