// @platformatic/kafka.
import { Consumer, MessagesStreamModes, Producer, stringDeserializers, stringSerializers } from '@platformatic/kafka'
import { batches, flush, pair, run, say } from './contract.mjs'

function base ({ bootstrap }) {
  // It goes on asking for as long as a restart takes.
  return { clientId: 'wardent-test', bootstrapBrokers: [bootstrap], retries: 300, retryDelay: 200 }
}

async function produce (options) {
  const producer = new Producer({
    ...base(options),
    serializers: stringSerializers,
    idempotent: true,
    compression: options.codec,
    autocreateTopics: true
  })
  for await (const numbers of batches(options)) {
    await producer.send({ messages: numbers.map(number => ({ topic: options.topic, ...pair(number) })) })
    for (const number of numbers) say({ acked: [number, -1, -1] })
  }
  await producer.close()
  say({ done: options.count })
}

function reader (options, groupId) {
  return new Consumer({
    ...base(options),
    groupId,
    deserializers: stringDeserializers,
    autocommit: false,
    sessionTimeout: 6_000,
    heartbeatInterval: 500,
    rebalanceTimeout: 10_000,
    maxWaitTime: 200
  })
}

/** Offsets of all partitions: -1 the ends, -2 the starts, or the first at a time. */
async function offsets (consumer, topic, timestamp) {
  const found = await consumer.listOffsets({ topics: [topic], timestamp: BigInt(timestamp) })
  return found.get(topic)
}

function show ({ partition, offset, timestamp, key, value }) {
  say({ record: [partition, Number(offset), Number(timestamp), key, value] })
}

async function consume (options) {
  const { topic } = options
  const consumer = reader(options, `reader-${process.pid}-${Date.now()}`)
  const starts = await offsets(consumer, topic, -2)
  const ends = await offsets(consumer, topic, -1)
  const left = new Set(ends.keys().filter(at => starts[at] < ends[at]))
  let count = 0
  if (left.size > 0) {
    const stream = await consumer.consume({ topics: [topic], mode: MessagesStreamModes.EARLIEST })
    for await (const message of stream) {
      show(message)
      count += 1
      if (message.offset + 1n >= ends[message.partition]) left.delete(message.partition)
      if (left.size === 0) break
    }
  }
  say({ done: count })
  flush()
  await consumer.close(true)
}

async function time (options) {
  const consumer = reader(options, `reader-${process.pid}-${Date.now()}`)
  const found = await offsets(consumer, options.topic, options.time)
  found.forEach((offset, partition) => say({ offset: [partition, Number(offset)] }))
  say({ done: found.length })
  await consumer.close(true)
}

async function group (options) {
  const { topic } = options
  const consumer = reader(options, options.group)
  consumer.on('consumer:group:join', ({ assignments }) => {
    const own = (assignments ?? consumer.assignments ?? []).find(one => one.topic === topic)
    say({ assigned: own?.partitions ?? [] })
    flush()
  })
  consumer.on('consumer:group:rebalance', () => {
    say({ assigned: [] })
    flush()
  })
  const mode = MessagesStreamModes.COMMITTED
  const stream = await consumer.consume({ topics: [topic], mode, fallbackMode: 'earliest' })
  process.on('SIGTERM', () => stream.close())
  let pending = new Map()
  const commit = async () => {
    const due = [...pending.values()]
    pending = new Map()
    if (due.length === 0) return
    flush()
    try {
      const at = due.map(({ partition, offset }) => ({ topic, partition, offset: offset + 1n, leaderEpoch: -1 }))
      await consumer.commit({ offsets: at })
      say({ committed: at.map(({ partition, offset }) => [partition, Number(offset)]) })
    } catch {
      // Refused while the group is being made anew: whoever gets the partition reads it again.
    }
  }
  let last = Date.now()
  const timer = setInterval(commit, 100)
  for await (const message of stream) {
    show(message)
    pending.set(message.partition, message)
    if (Date.now() - last > 100) {
      last = Date.now()
      await commit()
    }
  }
  clearInterval(timer)
  await commit()
  await consumer.close(true)
  say({ left: true })
}

await run({ produce, consume, time, group })
