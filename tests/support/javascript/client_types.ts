// Compiled, not run: a program that uses all of client.js, and four mistakes that the compiler finds.
import { connect, Group, Hub, HubError, Session, type Event, type State, type Token } from './client.js'

const hub: Hub = connect('ws://localhost:9527/api/v1/ws', { WebSocket: class { constructor(url: string, protocol: string) {} } })
const tokens: Token[] = ['hk_1', () => 'hk_2', async () => 'hk_3']
const page: any = await (await connect(undefined, { token: tokens[0] }).fetch('/sessions', { method: 'GET' })).json()
const off: () => void = hub.on('state', (state: State) => console.log(state, hub.retryInMs, hub.closeCode, hub.closeReason))
hub.on('welcome', ({ agents, limits }) => console.log(agents[0].agentId, limits.frameBytes))
const session: Session = hub.session('s1', { agent: 'main', afterSeq: 1, epoch: 'e', history: 3 })
session.on('event', (event) => {
  if (event.type === 'stream') console.log(event.content.length + event.offset)
  if (event.type === 'presence') console.log(event.count)
  if (event.type === 'run_finished') console.log(event.usage?.inputTokens, event.stopReason === 'cancelled')
})
session.on('reset', ({ messages }) => messages.map((message) => message.content))
session.on('subscribed', ({ history }) => history?.length)
session.on('error', (error: HubError) => console.log(error.code, error.retryable, error.text))
const position: [number | undefined, string | undefined] = [session.seq, session.epoch]
const chat = session.chat('hi', { clientMsgId: 'c', agent: 'main', ifBusy: 'replace' })
for await (const event of chat) if (event.type === 'reset') console.log(event.reason)
const run: string | undefined = (await chat.accepted).runId ?? chat.runId
const text: string = (await session.ask('hi')) + (await chat.text())
await session.cancel(run)
await session.typing()
await session.send({ type: 'subscribe', history: 10 })
const group: Group = hub.subscribe({ agentId: 'main' })
for await (const event of group) ((groupEvent: Event) => groupEvent)(event)
group.close()
session.close()
;(await hub.ready).close()
off()
// @ts-expect-error there is no such event
hub.on('stat', () => {})
// @ts-expect-error a message is text
session.chat(1)
// @ts-expect-error a token is text
connect(undefined, { token: 1 })
// @ts-expect-error only connect() makes one
new Hub()
console.log(position, text, page)
