// pgx with pgxpool: binary protocol, automatic statement cache, batches. Connects by PG* environment; exits non-zero
// with the reason on a wrong result. With the argument `logins`: one login for each line of standard input, see run.sh.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgconn"
	"github.com/jackc/pgx/v4"
	"github.com/jackc/pgx/v4/pgxpool"
)

const table = "driver_pgx"
const connections = 6

var ctx = context.Background()

func fail(format string, args ...interface{}) {
	fmt.Fprintf(os.Stderr, "pgx: "+format+"\n", args...)
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
	var refused *pgconn.PgError
	if !errors.As(err, &refused) || refused.Code != code {
		fail("%s: got %v, want SQLSTATE %s", what, err, code)
	}
}

func parameters(pool *pgxpool.Pool) {
	var n int
	var text string
	var raw []byte
	err := pool.QueryRow(ctx, "SELECT $1::int + $2::int, $3::text, $4::bytea", 40, 2, "it's œ", []byte{0, 255}).Scan(&n, &text, &raw)
	check("parameters", err)
	want("parameters", fmt.Sprint(n, text, raw), fmt.Sprint(42, "it's œ", []byte{0, 255}))
}

func transactions(pool *pgxpool.Pool) {
	check("commit", pool.BeginFunc(ctx, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "INSERT INTO "+table+" VALUES ($1, $2)", 1, "kept")
		check("insert", err)
		err = tx.BeginFunc(ctx, func(nested pgx.Tx) error {
			_, err := nested.Exec(ctx, "SELECT 1/0")
			return err
		})
		wantCode("error in a savepoint", err, "22012")
		return nil
	}))
	undo := errors.New("undo")
	err := pool.BeginFunc(ctx, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "INSERT INTO "+table+" VALUES ($1, $2)", 2, "lost")
		check("insert", err)
		return undo
	})
	want("rollback", err, undo)
	var notes string
	check("notes", pool.QueryRow(ctx, "SELECT string_agg(note, ',') FROM "+table).Scan(&notes))
	want("commit and rollback", notes, "kept")
}

// Every connection uses one statement name for another text.
func preparedLoop(pool *pgxpool.Pool, k int, pids *sync.Map) {
	conn, err := pool.Acquire(ctx)
	check("acquire", err)
	defer conn.Release()
	_, err = conn.Conn().Prepare(ctx, "same_name", fmt.Sprintf("SELECT $1::int * %d, pg_backend_pid()", k))
	check("prepare", err)
	for i := 0; i < 40; i++ {
		var got, pid int
		check("prepared", conn.QueryRow(ctx, "same_name", i).Scan(&got, &pid))
		want(fmt.Sprintf("prepared loop %d", k), got, i*k)
		pids.Store(pid, true)
	}
}

func batch(pool *pgxpool.Pool) {
	requests := &pgx.Batch{}
	for i := 0; i < 50; i++ {
		requests.Queue("SELECT $1::int", i)
	}
	results := pool.SendBatch(ctx, requests)
	for i := 0; i < 50; i++ {
		var got int
		check("batch", results.QueryRow().Scan(&got))
		want("batch", got, i)
	}
	check("batch end", results.Close())
}

func copyBoth(pool *pgxpool.Pool) {
	rows := make([][]interface{}, 0, 1000)
	for i := 100; i < 1100; i++ {
		rows = append(rows, []interface{}{i, "row"})
	}
	copied, err := pool.CopyFrom(ctx, pgx.Identifier{table}, []string{"id", "note"}, pgx.CopyFromRows(rows))
	check("copy", err)
	want("copy in", copied, 1000)
	_, err = pool.CopyFrom(ctx, pgx.Identifier{table}, []string{"id", "note"}, pgx.CopyFromRows(rows[:1]))
	wantCode("copy of a duplicate key", err, "23505")
	var sum int
	check("sum", pool.QueryRow(ctx, "SELECT sum(id) FROM "+table+" WHERE note = $1", "row").Scan(&sum))
	want("copied rows", sum, 599500)
}

func cancelQuery(pool *pgxpool.Pool) {
	conn, err := pool.Acquire(ctx)
	check("acquire", err)
	defer conn.Release()
	sent := make(chan error, 1)
	timer := time.AfterFunc(500*time.Millisecond, func() { sent <- conn.Conn().PgConn().CancelRequest(ctx) })
	defer timer.Stop()
	started := time.Now()
	_, err = conn.Exec(ctx, "SELECT pg_sleep(60)")
	wantCode("cancel", err, "57014")
	if time.Since(started) > 20*time.Second {
		fail("the cancel came late")
	}
	check("cancel request", <-sent)
	var one int
	check("after the cancel", conn.QueryRow(ctx, "SELECT 1").Scan(&one))
}

func login(words string) string {
	user, err := currentUser(words)
	if err == nil {
		return "ok\t" + user
	}
	var refused *pgconn.PgError
	if errors.As(err, &refused) {
		return "no\t" + refused.Code + "\t" + strings.Join(strings.Fields(refused.Message), " ")
	}
	return "no\t-\t" + strings.Join(strings.Fields(err.Error()), " ")
}

func currentUser(words string) (user string, err error) {
	conn, err := pgx.Connect(ctx, words)
	if err != nil {
		return "", err
	}
	defer conn.Close(ctx)
	err = conn.QueryRow(ctx, "SELECT current_user").Scan(&user)
	return user, err
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
	config, err := pgxpool.ParseConfig(fmt.Sprintf("pool_max_conns=%d", connections))
	check("config", err)
	pool, err := pgxpool.ConnectConfig(ctx, config)
	check("connect", err)
	_, err = pool.Exec(ctx, "DROP TABLE IF EXISTS "+table)
	check("drop", err)
	_, err = pool.Exec(ctx, "CREATE TABLE "+table+" (id int PRIMARY KEY, note text)")
	check("create", err)
	parameters(pool)
	transactions(pool)
	var group sync.WaitGroup
	var pids sync.Map
	for k := 1; k <= connections; k++ {
		group.Add(1)
		go func(k int) { defer group.Done(); preparedLoop(pool, k, &pids) }(k)
	}
	group.Wait()
	batch(pool)
	copyBoth(pool)
	cancelQuery(pool)
	_, err = pool.Exec(ctx, "DROP TABLE "+table)
	check("drop", err)
	pool.Close()
	servers := 0
	pids.Range(func(_, _ interface{}) bool { servers++; return true })
	fmt.Printf("ok pgx v4: %d servers\n", servers)
}
