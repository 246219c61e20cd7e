// Both ends of the suite that lies in the folder where this is run: `node run.mjs serve` is its
// server, on a free port of loopback that is printed; `node run.mjs ask URL` sends its requests
// there, by way of what is tested, and prints as JSON what the suite makes of each test's answers;
// `node run.mjs published NAME...` prints what it makes of those that it has published of others.

import { readFile } from 'node:fs/promises'
import http from 'node:http'
import { pathToFileURL } from 'node:url'

const of = file => import(pathToFileURL(`${process.cwd()}/${file}`))

async function serve () {
  const handlers = {}
  for (const name of ['config', 'state', 'test']) {
    handlers[name] = (await of(`test-engine/server/handle-${name}.mjs`)).default
  }
  const server = http.createServer((request, response) => {
    const [, name, ...rest] = new URL(request.url, 'http://localhost').pathname.split('/')
    const handler = handlers[name]
    if (handler === undefined) {
      response.writeHead(404).end()
    } else {
      handler(rest, request, response)
    }
  })
  server.listen(0, '127.0.0.1', () => console.log(server.address().port))
}

async function ask (base) {
  const suites = (await of('tests/index.mjs')).default
  const { runTests, getResults } = await of('test-engine/client/runner.mjs')
  await runTests(suites, false, base)
  console.log(JSON.stringify(await judged(suites, getResults())))
}

// What the suite's own folder says of others, judged in the same way.
async function published (names) {
  const suites = (await of('tests/index.mjs')).default
  const all = {}
  for (const name of names) {
    const results = JSON.parse(await readFile(`results/${name}.json`, 'utf8'))
    all[name] = await judged(suites, results)
  }
  console.log(JSON.stringify(all))
}

async function judged (suites, results) {
  const { determineTestResult, resultTypes } = await of('test-engine/lib/results.mjs')
  const judged = {}
  for (const { tests } of suites) {
    for (const { id, kind = 'required', browser_only: isForBrowsers } of tests) {
      if (isForBrowsers === true) continue
      const type = determineTestResult(suites, id, results)
      const [outcome] = Object.entries(resultTypes).find(([, other]) => other === type)
      const why = Array.isArray(results[id]) ? String(results[id][1]) : ''
      judged[id] = { kind, outcome, why }
    }
  }
  return judged
}

const [what, ...rest] = process.argv.slice(2)
await { serve, ask: () => ask(rest[0]), published: () => published(rest) }[what]()
