// What every program here takes and says; tests/clients/README.md has the contract.
import { writeSync } from 'node:fs'
import { setTimeout as pause } from 'node:timers/promises'

export function parse () {
  const [command, ...words] = process.argv.slice(2)
  const options = { command, first: '0', count: '0', rate: '0', codec: 'none', time: '0' }
  for (let at = 0; at < words.length; at += 2) options[words[at].slice(2)] = words[at + 1]
  for (const name of ['first', 'count', 'rate', 'time']) options[name] = Number(options[name])
  return options
}

let said = ''

/** A line of the answer; it is out after the next `flush`. */
export function say (fact) {
  said += JSON.stringify(fact) + '\n'
}

export function flush () {
  for (let rest = Buffer.from(said); rest.length > 0;) {
    try {
      rest = rest.subarray(writeSync(1, rest))
    } catch (error) {
      if (error.code !== 'EAGAIN') throw error
    }
  }
  said = ''
}

/** Key and value of a record: every key comes again, no value does. */
export function pair (number) {
  return { key: `key-${number % 997}`, value: `value-${number}` }
}

/** The records to write, in batches, each when it is due. */
export async function * batches ({ first, count, rate }) {
  const size = rate > 0 ? Math.max(1, Math.floor(rate / 20)) : 500
  const start = Date.now()
  for (let done = 0; done < count; done += size) {
    if (rate > 0) await pause(Math.max(0, start + done / rate * 1000 - Date.now()))
    yield Array.from({ length: Math.min(size, count - done) }, (_, at) => first + done + at)
  }
}

/** Runs what the command names, and ends with it. */
export async function run (commands) {
  const options = parse()
  await commands[options.command](options)
  flush()
  process.exit(0)
}
