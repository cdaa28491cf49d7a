// Compiled, not run: a program that uses all of client.js, and mistakes that the compiler finds.
import { connect, Group, Hub, HubError, Session } from './client.js'
import type { Accepted, Event, Message, Notice, Part, State, StoredFile, Token, UploadProgress } from './client.js'

const hub: Hub = connect('ws://localhost:9527/api/v1/ws', { WebSocket: class { constructor(url: string, protocol: string) {} } })
const tokens: Token[] = ['hk_1', () => 'hk_2', async () => 'hk_3']
const page: any = await (await connect(undefined, { token: tokens[0] }).fetch('/sessions', { method: 'GET' })).json()
const off: () => void = hub.on('state', (state: State) => console.log(state, hub.retryInMs, hub.closeCode, hub.closeReason))
hub.on('welcome', ({ agents, limits, principal }) => console.log(agents[0].agentId, limits.frameBytes, principal.name))
hub.on('notice', (notice: Notice) => notice.type === 'draining' && notice.withinMs)
const session: Session = hub.session('s1', { agent: 'main', afterSeq: 1, epoch: 'e', history: 3 })

/** Use a field of each kind of event; the compiler finds a kind that is missing here. */
function show(event: Event): unknown {
  switch (event.type) {
    case 'user_message': return [event.author.name, event.content, event.clientMsgId, event.metadata?.mood, event.parts?.map(showPart)]
    case 'run_started': return [event.runId, event.agentId, event.messageId, event.attempt, event.parentRunId]
    case 'stream': return event.content.length + event.offset
    case 'message': return [event.content, event.parts, event.stopReason, event.error?.code]
    case 'run_error': return [event.code, event.message, event.retryable, event.retryAfterMs]
    case 'run_finished': return [event.usage?.inputTokens, event.stopReason === 'cancelled', event.messageId]
    case 'message_removed': return [event.messageIds.length, event.reason === 'edited']
    case 'reasoning': return event.delta + event.messageId
    case 'tool_call_start': return event.toolCallId + event.toolCallName
    case 'tool_call_args': return event.toolCallId + event.delta
    case 'tool_call_end': return event.toolCallId
    case 'tool_call_result': return [event.content, event.isError, event.fileId, event.size]
    case 'progress': return [event.progress + 1, event.message]
    case 'step_started':
    case 'step_finished': return event.stepName
    case 'subagent_started': return [event.subagentRunId, event.name, event.parentSubagentRunId]
    case 'subagent_finished': return event.subagentRunId
    case 'subagent_error': return [event.subagentRunId, event.message, event.code]
    case 'custom': return [event.name, event.value]
    case 'state_snapshot': return event.snapshot
    case 'state_delta': return event.delta.length
    case 'interrupt': return [event.id, event.reason, event.message, event.responseSchema]
    case 'interrupt_resolved': return [event.interruptId, event.status, event.resolvedBy?.name, event.payload]
    default: return event satisfies never
  }
}

function showPart(part: Part): unknown {
  switch (part.type) {
    case 'text': return part.text
    case 'image':
    case 'audio':
    case 'video':
    case 'document': return [part.source.type, part.source.value, part.source.mimeType, part.metadata]
    case 'binary': return [part.id, part.url, part.data, part.filename, part.mimeType]
    case 'tool_call': return part.toolCallName + part.arguments
    case 'tool_result': return [part.toolCallId, part.content, part.isError]
    default: return part satisfies never
  }
}

session.on('event', (event) => {
  if (event.type === 'presence') console.log(event.count, event.members?.[0].name)
  else if (event.type === 'state') console.log(event.state === 'requires_action', event.active, event.queue, event.interrupts?.[0].id)
  else if (event.type === 'typing') console.log(event.author.id)
  else if (event.type === 'role') console.log(event.role === 'viewer')
  else if (event.type === 'error') console.log(event.code, event.retryAfterMs, event.limit)
  else if (event.type !== 'draining') show(event)
})
session.on('reset', ({ messages, reason }) => messages.map((message: Message) => message.content + reason))
session.on('subscribed', ({ history, active, role }) => [history?.length, active[0].runId, role])
session.on('error', (error: HubError) => console.log(error.code, error.retryable, error.text))
const position: [number | undefined, string | undefined] = [session.seq, session.epoch]
const controller = new AbortController()
const onProgress = ({ loaded, total }: UploadProgress) => console.log(loaded / total)
const file: StoredFile = await session.upload(new Blob(['x']), { name: 'x', type: 'text/plain', onProgress, signal: controller.signal })
const chat = session.chat('hi', {
  clientMsgId: 'c',
  agent: 'main',
  ifBusy: 'rollback',
  parts: [{ type: 'tool_result', toolCallId: 't', content: '7' }, { type: 'image', source: { type: 'url', value: 'x' } }],
  metadata: { mood: 'curious' },
  files: [file, 'text', new ArrayBuffer(1), new Uint8Array(1)],
  onProgress,
  signal: controller.signal,
})
for await (const event of chat) {
  if (event.type === 'reset') console.log(event.reason)
  else if ('role' in event) console.log(event.messageId)
  else show(event)
}
const accepted: Accepted = await chat.accepted
const run: string | undefined = accepted.runId ?? chat.runId
const text: string = (await session.ask('hi', { metadata: {}, onQuestion: ({ message }) => Promise.resolve(message) })) + (await chat.text())
console.log((await session.cancel(run)).runIds)
await session.resume('i_1', { colour: 'green' })
await session.resume('i_2', undefined, 'cancelled')
await session.typing()
await session.send({ type: 'subscribe', history: 10 })
for (const { fileId, ts } of await session.listFiles()) console.log(ts, (await session.readFile(fileId)).size, await session.deleteFile(fileId))
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
// @ts-expect-error only the hub makes this part
session.chat('x', { parts: [{ type: 'tool_call', toolCallId: 't', toolCallName: 'n', arguments: '{}' }] })
// @ts-expect-error a part has one of the types of the protocol
session.chat('x', { parts: [{ type: 'picture' }] })
// @ts-expect-error there is no such way
session.chat('x', { ifBusy: 'wait' })
// @ts-expect-error only connect() makes one
new Hub()
console.log(position, text, page)
