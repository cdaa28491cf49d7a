// node client_api.js URL: test what the driver does not, with a hub that has `echo`; print which checks hold.
import WebSocket from 'ws'
import { connect, HubError } from './client.js'

const url = process.argv[2]
const checks = {}
const code = (promise) => promise.then(() => undefined, (error) => error instanceof HubError && error.code)
const hub = connect(url, { WebSocket })
checks['ready resolves to the hub'] = (await hub.ready) === hub && hub.principal.id === 'local'
checks['agents'] = hub.agents.some(({ agentId }) => agentId === 'echo')

const session = hub.session('s1', { agent: 'echo' })
let subscribed = 0
session.on('subscribed', () => subscribed++)
checks['an object for each call'] = hub.session('s1') !== session

const group = hub.subscribe({ agentId: 'echo' })
const groupEvents = []
const reading = (async () => {
  for await (const event of group) {
    groupEvents.push(event)
    if (event.type === 'run_finished' && event.sessionId === 's1') break
  }
})()
const otherHub = connect(url, { WebSocket })
await otherHub.session('s2', { agent: 'echo' }).ask('other words')
let uncaught
process.on('uncaughtException', (error) => (uncaught = error.message))
const events = []
session.on('event', () => { throw new Error('mine') })
const off = session.on('event', (event) => event.seq && events.push(event))
checks['ask'] = (await session.ask('hello there')) === 'hello there '
await reading
checks['a group receives the events of all sessions'] = new Set(groupEvents.map((event) => event.sessionId)).size === 2
const isEqual = (first, second) => JSON.stringify(first) === JSON.stringify(second)
const ofSession = groupEvents.filter((event) => event.sessionId === 's1')
checks['a group receives the events of a session, once'] = isEqual(ofSession, events.filter((event) => event.runId))
checks['a listener that fails does not stop the others'] = uncaught === 'mine' && events.length > 3

off()
const before = events.length
const chat = session.chat('one two three')
await chat[Symbol.asyncIterator]().next()
await chat[Symbol.asyncIterator]().return() // as `break` in a loop does
checks['leaving the loop does not stop the answer'] = (await session.ask('again')) === 'again '
checks['a removed listener is not called'] = events.length === before
checks['a chat is accepted'] = (await session.chat('a').accepted).runId.startsWith('r_')

checks['a chat does not subscribe again'] = subscribed === 1
checks['a refused command rejects'] = (await code(session.send({ type: 'cancel', runId: 'r_none' }))) === 'not_running'
checks['an invalid id is refused'] = await code((async () => hub.session('no id'))()) === 'bad_id'
checks['typing has no answer'] = (await session.typing()) === undefined

for (let number = 0; number < 99; number++) hub.on('welcome', () => {})
hub.on('welcome', () => {})
let limitError
try { hub.on('welcome', () => {}) } catch (error) { limitError = error }
checks['the number of listeners has a limit'] = limitError instanceof RangeError

const second = otherHub.session('s3', { agent: 'echo' })
const pending = code(second.ask('never said'))
second.close()
checks['a closed session refuses'] = (await pending) === 'closed' && (await code(second.ask('x'))) === 'closed'
checks['a closed session can be opened again'] = (await otherHub.session('s3', { agent: 'echo' }).ask('hi')) === 'hi '

const late = session.chat('hello')
const cancel = code(session.cancel('r_any'))
hub.close()
checks['close() rejects pending promises'] = (await code(late.text())) === 'closed' && (await cancel) === 'disconnected'
checks['a closed hub refuses'] = (await code(session.ask('x'))) === 'closed' && hub.state === 'closed'
const unused = connect(url, { WebSocket })
unused.close()
checks['ready rejects if the hub is closed before'] = (await code(unused.ready)) === 'closed'
otherHub.close()
console.log(JSON.stringify(checks)) // no timer and no socket keeps this process alive
