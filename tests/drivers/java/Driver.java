// pgjdbc with server-side prepared statements from the first execution on. Reads the PG* environment; exits non-zero
// with the reason on a wrong result. With the argument `logins`: one login for each line of standard input, see run.sh.

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.StringReader;
import java.io.StringWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Savepoint;
import java.sql.Statement;
import java.util.Base64;
import java.util.Objects;
import java.util.Properties;
import java.util.Set;
import java.util.Timer;
import java.util.TimerTask;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.ArrayList;
import java.util.List;
import org.postgresql.PGConnection;
import org.postgresql.copy.CopyManager;
import org.postgresql.util.PSQLException;

public class Driver {
    static final String TABLE = "driver_pgjdbc";
    static final int CONNECTIONS = 6;

    interface Work { void run() throws Exception; }

    static void want(String what, Object got, Object expected) {
        if (!Objects.equals(got, expected)) {
            throw new AssertionError(what + ": got " + got + ", want " + expected);
        }
    }

    static void wantState(String what, String state, Work work) throws Exception {
        try {
            work.run();
        } catch (SQLException refused) {
            want(what + " (" + refused.getMessage() + ")", refused.getSQLState(), state);
            return;
        }
        throw new AssertionError(what + ": no error, want SQLSTATE " + state);
    }

    static Connection connect() throws SQLException {
        var env = System.getenv();
        var url = "jdbc:postgresql://" + env.get("PGHOST") + ":" + env.get("PGPORT") + "/" + env.get("PGDATABASE");
        var properties = new Properties();
        properties.setProperty("user", env.get("PGUSER"));
        properties.setProperty("password", env.get("PGPASSWORD"));
        properties.setProperty("sslmode", env.get("PGSSLMODE"));
        properties.setProperty("sslrootcert", env.get("PGSSLROOTCERT"));
        properties.setProperty("prepareThreshold", "1");
        return DriverManager.getConnection(url, properties);
    }

    static void execute(Connection conn, String sql) throws SQLException {
        try (Statement statement = conn.createStatement()) {
            statement.execute(sql);
        }
    }

    static void insert(Connection conn, int id, String note) throws SQLException {
        try (PreparedStatement statement = conn.prepareStatement("INSERT INTO " + TABLE + " VALUES (?, ?)")) {
            statement.setInt(1, id);
            statement.setString(2, note);
            want("rows inserted", statement.executeUpdate(), 1);
        }
    }

    static String one(Connection conn, String sql) throws SQLException {
        try (Statement statement = conn.createStatement(); ResultSet rows = statement.executeQuery(sql)) {
            rows.next();
            return rows.getString(1);
        }
    }

    static void parameters(Connection conn) throws SQLException {
        try (PreparedStatement statement = conn.prepareStatement("SELECT ?::int + ?::int, ?::text")) {
            statement.setInt(1, 40);
            statement.setInt(2, 2);
            statement.setString(3, "it's œ");
            try (ResultSet rows = statement.executeQuery()) {
                rows.next();
                want("parameters", rows.getInt(1) + rows.getString(2), "42it's œ");
            }
        }
    }

    static void transactions(Connection conn) throws Exception {
        conn.setAutoCommit(false);
        insert(conn, 1, "kept");
        Savepoint savepoint = conn.setSavepoint();
        wantState("error in a savepoint", "22012", () -> one(conn, "SELECT 1/0"));
        conn.rollback(savepoint);
        conn.commit();
        insert(conn, 2, "lost");
        wantState("error in a transaction", "22012", () -> one(conn, "SELECT 1/0"));
        wantState("after the error", "25P02", () -> one(conn, "SELECT 1"));
        conn.rollback();
        conn.setAutoCommit(true);
        want("commit and rollback", one(conn, "SELECT string_agg(note, ',') FROM " + TABLE), "kept");
    }

    /** Each connection counts its statements from S_1, so all of them use one name for another text. */
    static void preparedLoop(int k, Set<Integer> pids) throws SQLException {
        try (Connection conn = connect();
                PreparedStatement statement = conn.prepareStatement("SELECT ?::int * " + k + ", pg_backend_pid()")) {
            for (int i = 0; i < 40; i++) {
                statement.setInt(1, i);
                try (ResultSet rows = statement.executeQuery()) {
                    rows.next();
                    want("prepared loop " + k, rows.getInt(1), i * k);
                    pids.add(rows.getInt(2));
                }
            }
        }
    }

    static int allPreparedLoops() throws Exception {
        Set<Integer> pids = ConcurrentHashMap.newKeySet();
        ExecutorService threads = Executors.newFixedThreadPool(CONNECTIONS);
        List<Future<?>> loops = new ArrayList<>();
        for (int k = 1; k <= CONNECTIONS; k++) {
            int factor = k;
            loops.add(threads.submit(() -> {
                preparedLoop(factor, pids);
                return null;
            }));
        }
        for (Future<?> loop : loops) {
            loop.get();
        }
        threads.shutdown();
        return pids.size();
    }

    static void batch(Connection conn) throws SQLException {
        try (PreparedStatement statement = conn.prepareStatement("INSERT INTO " + TABLE + " VALUES (?, 'batch')")) {
            for (int i = 0; i < 50; i++) {
                statement.setInt(1, 5000 + i);
                statement.addBatch();
            }
            want("batch", statement.executeBatch().length, 50);
        }
    }

    /** A fetch size needs a named portal that lives through several Execute messages. */
    static void cursor(Connection conn) throws SQLException {
        conn.setAutoCommit(false);
        try (Statement statement = conn.createStatement()) {
            statement.setFetchSize(10);
            int expected = 0;
            try (ResultSet rows = statement.executeQuery("SELECT generate_series(1, 95)")) {
                while (rows.next()) {
                    want("cursor", rows.getInt(1), ++expected);
                }
            }
            want("cursor rows", expected, 95);
        }
        conn.commit();
        conn.setAutoCommit(true);
    }

    static void copy(Connection conn) throws Exception {
        CopyManager copier = conn.unwrap(PGConnection.class).getCopyAPI();
        StringBuilder lines = new StringBuilder();
        for (int i = 100; i < 1100; i++) {
            lines.append(i).append("\trow\n");
        }
        want("copy in", copier.copyIn("COPY " + TABLE + " FROM STDIN", new StringReader(lines.toString())), 1000L);
        StringWriter out = new StringWriter();
        String query = "COPY (SELECT id, note FROM " + TABLE + " WHERE note = 'row' ORDER BY id) TO STDOUT";
        want("copy out", copier.copyOut(query, out), 1000L);
        want("copied rows", out.toString(), lines.toString());
        wantState("copy of a duplicate key", "23505",
                () -> copier.copyIn("COPY " + TABLE + " FROM STDIN", new StringReader("100\tduplicate\n")));
    }

    static void cancel(Connection conn) throws Exception {
        Timer timer = new Timer(true);
        long started = System.nanoTime();
        try (Statement statement = conn.createStatement()) {
            timer.schedule(new TimerTask() {
                @Override public void run() {
                    try {
                        statement.cancel();
                    } catch (SQLException refused) {
                        refused.printStackTrace();
                    }
                }
            }, 500);
            wantState("cancel", "57014", () -> statement.execute("SELECT pg_sleep(60)"));
        }
        want("cancelled in time", System.nanoTime() - started < 20_000_000_000L, true);
        want("after the cancel", one(conn, "SELECT 1"), "1");
    }

    static int run() throws Exception {
        try (Connection conn = connect()) {
            execute(conn, "DROP TABLE IF EXISTS " + TABLE);
            execute(conn, "CREATE TABLE " + TABLE + " (id int PRIMARY KEY, note text)");
            parameters(conn);
            transactions(conn);
            int servers = allPreparedLoops();
            batch(conn);
            cursor(conn);
            copy(conn);
            cancel(conn);
            execute(conn, "DROP TABLE " + TABLE);
            return servers;
        }
    }

    /** The driver reads keys in DER only. */
    static String keyAsDer(String folder) throws IOException {
        String text = Files.readString(Path.of(folder, "client.key")).replaceAll("-----[A-Z ]+-----|\\s", "");
        Path der = Files.createTempFile("weir-driver", ".pk8");
        der.toFile().deleteOnExit();
        return Files.write(der, Base64.getDecoder().decode(text)).toString();
    }

    static void loginTls(Properties properties, String how, String folder) throws IOException {
        properties.setProperty("sslmode", switch (how) {
            case "plain" -> "disable";
            case "tls" -> "require";
            default -> "verify-full";
        });
        if (!how.equals("plain") && !how.equals("tls")) {
            properties.setProperty("sslrootcert", folder + "/authority.crt");
        }
        if (how.equals("certificate")) {
            properties.setProperty("sslcert", folder + "/client.crt");
            properties.setProperty("sslkey", keyAsDer(folder));
        }
    }

    static String login(String[] words) throws IOException {
        var properties = new Properties();
        properties.setProperty("user", words[4]);
        properties.setProperty("password", words[5]);
        properties.setProperty("connectTimeout", "20");
        loginTls(properties, words[0], words[1]);
        var url = "jdbc:postgresql://" + words[2] + ":" + words[3] + "/" + words[6];
        try (Connection conn = DriverManager.getConnection(url, properties)) {
            return "ok\t" + one(conn, "SELECT current_user");
        } catch (SQLException refused) {
            // Its own complaints have codes, too.
            boolean isServers = refused instanceof PSQLException report && report.getServerErrorMessage() != null;
            String code = isServers ? refused.getSQLState() : "-";
            return "no\t" + code + "\t" + refused.getMessage().replaceAll("\\s+", " ");
        }
    }

    static void logins() throws IOException {
        var lines = new BufferedReader(new InputStreamReader(System.in));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            System.out.println(login(line.split("\t")));
        }
    }

    public static void main(String[] args) throws IOException {
        if (args.length == 1 && args[0].equals("logins")) {
            logins();
            return;
        }
        try {
            int servers = run();
            System.out.println("ok pgjdbc " + org.postgresql.util.DriverInfo.DRIVER_VERSION + ": " + servers + " servers");
        } catch (Throwable failure) {
            System.err.print("pgjdbc: ");
            failure.printStackTrace();
            System.exit(1);
        }
    }
}
