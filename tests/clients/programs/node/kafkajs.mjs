// kafkajs, with kafkajs-lz4 beside it.
import kafkajs from 'kafkajs'
import LZ4Codec from 'kafkajs-lz4'
import { batches, flush, pair, run, say } from './contract.mjs'

const { CompressionCodecs, CompressionTypes, Kafka, Partitioners, logLevel } = kafkajs
CompressionCodecs[CompressionTypes.LZ4] = new LZ4Codec().codec

const CODECS = { none: CompressionTypes.None, gzip: CompressionTypes.GZIP, lz4: CompressionTypes.LZ4 }

function client ({ bootstrap }) {
  return new Kafka({
    clientId: 'wardent-test',
    brokers: [bootstrap],
    logLevel: logLevel.ERROR,
    // It goes on asking for as long as a restart takes.
    retry: { initialRetryTime: 100, maxRetryTime: 1_000, retries: 60 }
  })
}

async function produce (options) {
  const producer = client(options).producer({
    idempotent: true,
    maxInFlightRequests: 1,
    createPartitioner: Partitioners.DefaultPartitioner
  })
  await producer.connect()
  for await (const numbers of batches(options)) {
    const { topic } = options
    await producer.send({ topic, compression: CODECS[options.codec], messages: numbers.map(pair) })
    // A batch goes to several partitions, and only their first offsets are told.
    for (const number of numbers) say({ acked: [number, -1, -1] })
  }
  await producer.disconnect()
  say({ done: options.count })
}

/** Partitions that hold something, with the offset after their last record. */
async function ends (kafka, topic) {
  const admin = kafka.admin()
  await admin.connect()
  const offsets = await admin.fetchTopicOffsets(topic)
  await admin.disconnect()
  return new Map(offsets.filter(one => one.low !== one.high).map(one => [one.partition, BigInt(one.high)]))
}

function show (partition, message) {
  const { offset, timestamp, key, value } = message
  say({ record: [partition, Number(offset), Number(timestamp), key.toString(), value.toString()] })
}

async function consume (options) {
  const kafka = client(options)
  const left = await ends(kafka, options.topic)
  const groupId = `reader-${process.pid}-${Date.now()}`
  const consumer = kafka.consumer({ groupId, sessionTimeout: 6_000 })
  await consumer.connect()
  await consumer.subscribe({ topic: options.topic, fromBeginning: true })
  let count = 0
  await new Promise((resolve, reject) => {
    consumer.on(consumer.events.CRASH, ({ payload }) => reject(payload.error))
    if (left.size === 0) resolve()
    consumer.run({
      autoCommit: false,
      eachMessage: async ({ partition, message }) => {
        show(partition, message)
        count += 1
        if (BigInt(message.offset) + 1n >= left.get(partition)) left.delete(partition)
        if (left.size === 0) resolve()
      }
    })
  })
  say({ done: count })
  flush()
  await consumer.disconnect()
}

async function time (options) {
  const admin = client(options).admin()
  await admin.connect()
  const found = await admin.fetchTopicOffsetsByTimestamp(options.topic, options.time)
  const now = await admin.fetchTopicOffsets(options.topic)
  for (const { partition, offset } of found) {
    // It tells the end where there is nothing so late.
    const end = now.find(one => one.partition === partition).high
    say({ offset: [partition, offset === end ? -1 : Number(offset)] })
  }
  say({ done: found.length })
  await admin.disconnect()
}

async function group (options) {
  const consumer = client(options).consumer({
    groupId: options.group,
    sessionTimeout: 6_000,
    heartbeatInterval: 500,
    rebalanceTimeout: 10_000,
    maxWaitTimeInMs: 200
  })
  const leaving = new Promise(resolve => process.on('SIGTERM', resolve))
  consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => {
    say({ assigned: payload.memberAssignment[options.topic] ?? [] })
    flush()
  })
  consumer.on(consumer.events.REBALANCING, () => {
    say({ assigned: [] })
    flush()
  })
  await consumer.connect()
  await consumer.subscribe({ topic: options.topic, fromBeginning: true })
  await consumer.run({
    autoCommit: false,
    eachBatch: async ({ batch, resolveOffset, heartbeat }) => {
      const { topic, partition, messages } = batch
      for (const message of messages) {
        show(partition, message)
        resolveOffset(message.offset)
      }
      flush()
      const offset = (BigInt(batch.lastOffset()) + 1n).toString()
      await consumer.commitOffsets([{ topic, partition, offset }])
      say({ committed: [[partition, Number(offset)]] })
      await heartbeat()
    }
  })
  await leaving
  await consumer.disconnect()
  say({ left: true })
}

await run({ produce, consume, time, group })
