// lib/pq through database/sql. Connects by PG* environment; exits non-zero with the reason on a wrong result.
// lib/pq sends Parse+Describe+Sync and then Bind+Execute+Sync for a query with parameters, so an unnamed statement
// has to survive a Sync. With the argument `logins`: one login for each line of standard input, see run.sh.
package main

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/lib/pq"
)

const table = "driver_libpq_go"
const connections = 6

func fail(format string, args ...interface{}) {
	fmt.Fprintf(os.Stderr, "lib/pq: "+format+"\n", args...)
	os.Exit(1)
}

func check(what string, err error) {
	if err != nil {
		fail("%s: %v", what, err)
	}
}

func want(what string, got, expected interface{}) {
	if fmt.Sprint(got) != fmt.Sprint(expected) {
		fail("%s: got %v, want %v", what, got, expected)
	}
}

func wantCode(what string, err error, code string) {
	var refused *pq.Error
	if !errors.As(err, &refused) || string(refused.Code) != code {
		fail("%s: got %v, want SQLSTATE %s", what, err, code)
	}
}

func parameters(db *sql.DB) {
	var n int
	var text string
	check("parameters", db.QueryRow("SELECT $1::int + $2::int, $3::text", 40, 2, "it's œ").Scan(&n, &text))
	want("parameters", fmt.Sprint(n, text), fmt.Sprint(42, "it's œ"))
}

func transactions(db *sql.DB) {
	tx, err := db.Begin()
	check("begin", err)
	_, err = tx.Exec("INSERT INTO "+table+" VALUES ($1, $2)", 1, "kept")
	check("insert", err)
	check("commit", tx.Commit())
	tx, err = db.Begin()
	check("begin", err)
	_, err = tx.Exec("INSERT INTO "+table+" VALUES ($1, $2)", 2, "lost")
	check("insert", err)
	_, err = tx.Exec("SELECT 1/0")
	wantCode("error in a transaction", err, "22012")
	_, err = tx.Exec("SELECT $1::int", 1)
	wantCode("after the error", err, "25P02")
	check("rollback", tx.Rollback())
	var notes string
	check("notes", db.QueryRow("SELECT string_agg(note, ',') FROM "+table).Scan(&notes))
	want("commit and rollback", notes, "kept")
}

// Each connection numbers its statements from 1, so all of them use one name for another text.
func preparedLoop(db *sql.DB, k int, pids *sync.Map) {
	conn, err := db.Conn(context.Background())
	check("connection", err)
	defer conn.Close()
	stmt, err := conn.PrepareContext(context.Background(), fmt.Sprintf("SELECT $1::int * %d, pg_backend_pid()", k))
	check("prepare", err)
	defer stmt.Close()
	for i := 0; i < 40; i++ {
		var got, pid int
		check("prepared", stmt.QueryRow(i).Scan(&got, &pid))
		want(fmt.Sprintf("prepared loop %d", k), got, i*k)
		pids.Store(pid, true)
	}
}

func copyIn(db *sql.DB) {
	tx, err := db.Begin()
	check("begin", err)
	stmt, err := tx.Prepare(pq.CopyIn(table, "id", "note"))
	check("copy", err)
	for i := 100; i < 1100; i++ {
		_, err = stmt.Exec(i, "row")
		check("copy row", err)
	}
	_, err = stmt.Exec()
	check("copy end", err)
	check("copy close", stmt.Close())
	check("commit", tx.Commit())
	var count, sum int
	check("count", db.QueryRow("SELECT count(*), sum(id) FROM "+table+" WHERE note = $1", "row").Scan(&count, &sum))
	want("copy in", fmt.Sprint(count, sum), fmt.Sprint(1000, 599500))
}

func cancelQuery(db *sql.DB) {
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	started := time.Now()
	_, err := db.ExecContext(ctx, "SELECT pg_sleep($1)", 60)
	wantCode("cancel", err, "57014")
	if time.Since(started) > 20*time.Second {
		fail("the cancel came late")
	}
	var one int
	check("after the cancel", db.QueryRow("SELECT 1").Scan(&one))
}

func login(words string) string {
	db, err := sql.Open("postgres", words)
	check("open", err)
	defer db.Close()
	var user string
	err = db.QueryRow("SELECT current_user").Scan(&user)
	if err == nil {
		return "ok\t" + user
	}
	var refused *pq.Error
	if errors.As(err, &refused) {
		return "no\t" + string(refused.Code) + "\t" + strings.Join(strings.Fields(refused.Message), " ")
	}
	return "no\t-\t" + strings.Join(strings.Fields(err.Error()), " ")
}

func logins() {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		columns := strings.Split(lines.Text(), "\t")
		fmt.Println(login(columns[len(columns)-1]))
	}
	check("standard input", lines.Err())
}

func main() {
	if len(os.Args) == 2 && os.Args[1] == "logins" {
		logins()
		return
	}
	db, err := sql.Open("postgres", "")
	check("open", err)
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	_, err = db.Exec("SET LOCAL client_min_messages = warning; DROP TABLE IF EXISTS " + table)
	check("drop", err)
	_, err = db.Exec("CREATE TABLE " + table + " (id int PRIMARY KEY, note text)")
	check("create", err)
	parameters(db)
	transactions(db)
	var group sync.WaitGroup
	var pids sync.Map
	for k := 1; k <= connections; k++ {
		group.Add(1)
		go func(k int) { defer group.Done(); preparedLoop(db, k, &pids) }(k)
	}
	group.Wait()
	copyIn(db)
	cancelQuery(db)
	_, err = db.Exec("DROP TABLE " + table)
	check("drop", err)
	servers := 0
	pids.Range(func(_, _ interface{}) bool { servers++; return true })
	fmt.Printf("ok lib/pq: %d servers\n", servers)
}
