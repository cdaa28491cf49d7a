// @ts-nocheck: the packages of the peer dependencies are not among the tools of make lint-js

import { useExternalMessageConverter, useExternalStoreRuntime } from '@assistant-ui/react'
import { toToolsJSONSchema } from 'assistant-stream'
import { useMemo, useSyncExternalStore } from 'react'
import { AgentStore } from './agent_store.js'

/** A session as a runtime of assistant-ui: see assistant-ui.d.ts. */
export function useHubbubRuntime(agent) {
  const store = useMemo(() => new AgentStore(agent), [agent])
  const { messages, isRunning, questions, error } = useSyncExternalStore(store.subscribe, store.getSnapshot, store.getSnapshot)
  const metadata = useMemo(() => (error === undefined ? {} : { error }), [error])
  const runtime = useExternalStoreRuntime({
    messages: useExternalMessageConverter({ callback: toThreadMessage, messages, isRunning, metadata }),
    isRunning,
    isSendDisabled: questions.length > 0,
    onNew: ({ content }) => store.send(joinText(content), makeContext(runtime)),
    onCancel: async () => agent.abortRun(),
    onAddToolResult: (result) => store.addResult(result, makeContext(runtime)),
    unstable_enableToolInvocations: true,
    // `false`: this page does not run the tool. Not before the end of the run: assistant-ui would warn.
    unstable_isClientToolCall: ({ toolCallId }) => (isRunning || store.isOwnCall(toolCallId) ? undefined : false),
  })
  const answer = (id, payload, status = 'resolved') => store.run({ ...makeContext(runtime), resume: [{ interruptId: id, status, payload }] })
  return { runtime, questions, answer }
}

/** Return the tools and the instructions of the page's components in AG-UI's form. */
function makeContext(runtime) {
  const { tools = {}, system } = runtime.thread.getModelContext()
  const schemas = Object.entries(toToolsJSONSchema(tools))
  return {
    tools: schemas.map(([name, { description = '', parameters }]) => ({ name, description, parameters })),
    context: system ? [{ description: 'system', value: system }] : [],
  }
}

/** Convert a message of AG-UI. assistant-ui joins the parts of one answer. */
function toThreadMessage({ id, role, content, toolCalls = [], toolCallId, error }) {
  switch (role) {
    case 'user': return { id, role, content: typeof content === 'string' ? content : content.map(toPart) }
    case 'assistant': return { id, role, content: [...toText(content), ...toolCalls.map(toCallPart)] }
    case 'reasoning': return { id, role: 'assistant', content: [{ type: 'reasoning', text: content }] }
    case 'tool': return { role, toolCallId, result: parseResult(content), isError: error !== undefined }
    default: return []
  }
}

const toText = (text) => (text ? [{ type: 'text', text }] : [])

const toCallPart = ({ id, function: { name, arguments: argsText } }) => ({ type: 'tool-call', toolCallId: id, toolName: name, argsText })

function toPart({ type, text, source, metadata }) {
  if (type === 'text') return { type, text }
  const { value, mimeType = '' } = source
  if (type !== 'image') return { type: 'file', data: value, mimeType, filename: metadata?.filename }
  return { type, image: source.type === 'data' ? `data:${mimeType};base64,${value}` : value }
}

function parseResult(content) {
  try {
    return JSON.parse(content)
  } catch {
    return content
  }
}

const joinText = (parts) => parts.flatMap(({ type, text }) => (type === 'text' ? [text] : [])).join('\n')
