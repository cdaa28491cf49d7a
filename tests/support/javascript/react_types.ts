// Compiled, not run: a program that uses all of react.js, and mistakes that the compiler finds.
import { connect } from './client.js'
import { useHubbub } from './react.js'
import type { ChatMessage, Conversation, ToolCall } from './react.js'

const conversation: Conversation = useHubbub(connect(), 's1', { agent: 'main', history: 10 })
const { messages, questions, members, isRunning, connection, error, session, send, stop, answer } = conversation
messages.map((message: ChatMessage) => [message.messageId, message.role === 'user', message.content, message.agentId, message.runId])
messages.map(({ author, ts, parts, metadata, reasoning, usage }) => [author?.name, ts, parts?.length, metadata, reasoning, usage?.outputTokens])
messages.map(({ isStreaming, isPending, stopReason, error: fault }) => [isStreaming, isPending, stopReason === 'cancelled', fault?.code])
messages.flatMap(({ toolCalls }) => toolCalls.map((call: ToolCall) => [call.id, call.name, call.arguments, call.result, call.isError]))
console.log(questions[0].responseSchema, members[0].name, isRunning, connection === 'live', error?.retryable, session?.seq)
console.log((await send('hi', { files: ['text'], metadata: {} }))?.runId)
await answer('i_1', { colour: 'green' }, 'resolved')
await stop()
// @ts-expect-error a session has an id
useHubbub(connect())
// @ts-expect-error there is no such state
console.log(connection === 'open')
