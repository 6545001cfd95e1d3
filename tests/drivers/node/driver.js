// node-postgres with pg-copy-streams. Connects by PG* environment; exits non-zero with the reason on a wrong result.
// With the argument `logins`: one login for each line of standard input, see run.sh.
'use strict'

const assert = require('node:assert/strict')
const fs = require('node:fs')
const readline = require('node:readline')
const { Readable } = require('node:stream')
const { pipeline } = require('node:stream/promises')
const { Pool, Client } = require('pg')
const { from: copyFrom, to: copyTo } = require('pg-copy-streams')

// cancel() itself uses a getter that it warns about.
process.noDeprecation = true

const TABLE = 'driver_node'
const CONNECTIONS = 6

// The sslmode of the environment would override the object that this makes.
function tls() {
  const ssl = { ca: fs.readFileSync(process.env.PGSSLROOTCERT, 'utf8') }
  delete process.env.PGSSLMODE
  delete process.env.PGSSLROOTCERT
  return ssl
}

async function within(pool, work) {
  const client = await pool.connect()
  try {
    return await work(client)
  } finally {
    client.release()
  }
}

async function parameters(pool) {
  const { rows } = await pool.query('SELECT $1::int + $2::int AS n, $3::text AS t, $4::bytea AS b', [40, 2, "it's œ", Buffer.from([0, 255])])
  assert.deepEqual(rows, [{ n: 42, t: "it's œ", b: Buffer.from([0, 255]) }], 'parameters')
}

async function transactions(pool) {
  await within(pool, async (client) => {
    await client.query('BEGIN')
    await client.query(`INSERT INTO ${TABLE} VALUES ($1, $2)`, [1, 'kept'])
    await client.query('COMMIT')
    await client.query('BEGIN')
    await client.query(`INSERT INTO ${TABLE} VALUES ($1, $2)`, [2, 'lost'])
    await assert.rejects(client.query('SELECT 1/0'), { code: '22012' })
    await assert.rejects(client.query('SELECT 1'), { code: '25P02' })
    await client.query('ROLLBACK')
  })
  const { rows } = await pool.query(`SELECT note FROM ${TABLE}`)
  assert.deepEqual(rows, [{ note: 'kept' }], 'commit and rollback')
}

// Every connection uses one statement name for another text.
async function preparedLoop(pool, k) {
  const pids = new Set()
  await within(pool, async (client) => {
    for (let i = 0; i < 40; i++) {
      const { rows } = await client.query({ name: 'same_name', text: `SELECT $1::int * ${k} AS n, pg_backend_pid() AS pid`, values: [i] })
      assert.equal(rows[0].n, i * k, `prepared loop ${k}`)
      pids.add(rows[0].pid)
    }
  })
  return pids
}

async function copy(pool) {
  await within(pool, async (client) => {
    const lines = Array.from({ length: 1000 }, (_, i) => `${i + 100}\trow\n`)
    await pipeline(Readable.from(lines), client.query(copyFrom(`COPY ${TABLE} FROM STDIN`)))
    const chunks = []
    const out = client.query(copyTo(`COPY (SELECT id FROM ${TABLE} WHERE id >= 100 ORDER BY id) TO STDOUT`))
    for await (const chunk of out) chunks.push(chunk)
    const ids = Buffer.concat(chunks).toString().trim().split('\n').map(Number)
    assert.deepEqual(ids, lines.map((_, i) => i + 100), 'copy out')
    const again = pipeline(Readable.from(['100\tduplicate\n']), client.query(copyFrom(`COPY ${TABLE} FROM STDIN`)))
    await assert.rejects(again, { code: '23505' })
  })
}

async function cancel(pool) {
  await within(pool, async (client) => {
    const text = `SELECT pg_sleep(60) /* node cancel ${process.pid} */`
    const sleeping = client.query(text)
    const cancelled = assert.rejects(sleeping, { code: '57014' })
    const running = async () => {
      const sql = "SELECT count(*)::int AS n FROM pg_stat_activity WHERE state = 'active' AND query = $1"
      return (await pool.query(sql, [text])).rows[0].n === 1
    }
    const deadline = Date.now() + 20000
    while (!(await running())) assert.ok(Date.now() < deadline, 'pg_sleep never showed in pg_stat_activity')
    new Client().cancel(client, client.activeQuery)
    await cancelled
    const { rows } = await client.query('SELECT 1 AS one')
    assert.deepEqual(rows, [{ one: 1 }], 'after the cancel')
  })
}

async function main() {
  const pool = new Pool({ max: CONNECTIONS, ssl: tls() })
  await pool.query(`SET LOCAL client_min_messages = warning; DROP TABLE IF EXISTS ${TABLE}`)
  await pool.query(`CREATE TABLE ${TABLE} (id int PRIMARY KEY, note text)`)
  await parameters(pool)
  await transactions(pool)
  const loops = await Promise.all(Array.from({ length: CONNECTIONS }, (_, i) => preparedLoop(pool, i + 1)))
  const servers = new Set(loops.flatMap((pids) => [...pids]))
  await copy(pool)
  await cancel(pool)
  await pool.query(`DROP TABLE ${TABLE}`)
  await pool.end()
  console.log(`ok node-postgres ${require('pg/package.json').version}: ${servers.size} servers`)
}

function loginTls(how, folder) {
  const read = (name) => fs.readFileSync(`${folder}/${name}`, 'utf8')
  if (how === 'plain' || how === 'unix') return { ssl: false }
  if (how === 'tls') return { ssl: { rejectUnauthorized: false } }
  const ssl = { ca: read('authority.crt') }
  if (how === 'certificate') Object.assign(ssl, { cert: read('client.crt'), key: read('client.key') })
  return { ssl, enableChannelBinding: how === 'bound', ...(how === 'direct' && { sslnegotiation: 'direct' }) }
}

async function login(how, folder, host, port, user, password, database) {
  const client = new Client({ host, port: Number(port), user, password, database, ...loginTls(how, folder) })
  client.on('error', () => {})
  // It falls back to SCRAM-SHA-256 without a word.
  let mechanism
  client.connection.once('authenticationSASLContinue', () => { mechanism = client.saslSession.mechanism })
  try {
    await client.connect()
    if (how === 'bound' && mechanism !== 'SCRAM-SHA-256-PLUS') return ['no', '-', `not bound to the channel: ${mechanism}`]
    return ['ok', (await client.query('SELECT current_user')).rows[0].current_user]
  } catch (error) {
    return ['no', error.severity ? error.code : '-', String(error.message).replace(/\s+/g, ' ')]
  } finally {
    await client.end().catch(() => {})
  }
}

async function logins() {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    console.log((await login(...line.split('\t').slice(0, 7))).join('\t'))
  }
}

const work = process.argv[2] === 'logins' ? logins : main
work().catch((error) => {
  console.error('node-postgres:', error)
  process.exit(1)
})
