// A client of npm mqtt that publishes numbers or prints what it gets. Its task
// is one line of JSON on standard input:
//   {url, version, clientId, username, password, ca, topic, count, pace}
// With a count it publishes 1 to count with QoS 1, one each pace milliseconds at
// most, prints "acked N" for each
// acknowledgement, and ends when all are. Without one it subscribes with QoS 1
// and prints "got PAYLOAD" until standard input ends.
import { createInterface } from 'node:readline'
import mqtt from 'mqtt'

const inFlight = 20

const input = createInterface({ input: process.stdin })
const lines = input[Symbol.asyncIterator]()
const task = JSON.parse((await lines.next()).value)

const client = mqtt.connect(task.url, {
  protocolVersion: task.version,
  clientId: task.clientId,
  username: task.username || undefined,
  password: task.password || undefined,
  ca: task.ca || undefined,
  clean: false,
  properties: task.version === 5 ? { sessionExpiryInterval: 3600 } : undefined,
  reconnectPeriod: 100,
  connectTimeout: 5000,
})
client.on('connect', (packet) => console.log(`connected ${packet.sessionPresent ? 'again' : 'new'}`))
client.on('error', (error) => console.log(`error ${error.message}`))

if (task.count) {
  let next = 1
  let acked = 0
  const ticker = setInterval(() => {
    if (next <= task.count && next - acked <= inFlight) {
      const n = next++
      client.publish(task.topic, String(n), { qos: 1 }, (error) => {
        if (error) {
          console.log(`failed ${n} ${error.message}`)
          process.exit(1)
        }
        acked++
        console.log(`acked ${n}`)
        if (acked === task.count) {
          clearInterval(ticker)
          client.end(false, {}, () => process.exit(0))
        }
      })
    }
  }, task.pace)
} else {
  client.on('message', (_, payload) => console.log(`got ${payload}`))
  client.once('connect', () => client.subscribe(task.topic, { qos: 1 }, (error) => {
    if (error) {
      console.log(`failed ${error.message}`)
      process.exit(1)
    }
    console.log('subscribed')
  }))
  await lines.next() // the end
  client.end(true, {}, () => process.exit(0))
}
