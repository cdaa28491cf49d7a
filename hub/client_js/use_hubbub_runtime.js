// @ts-nocheck: the packages of the peer dependencies are not among the tools of make lint-js

import { useExternalMessageConverter, useExternalStoreRuntime } from '@assistant-ui/react'
import { toToolsJSONSchema } from 'assistant-stream'
import { useCallback, useMemo, useSyncExternalStore } from 'react'
import { joinText, makeFileUrl, uploadFile } from './agent_commands.js'
import { AgentStore } from './agent_store.js'
import { newId } from './ids.js'

/** A session as a runtime of assistant-ui: see assistant-ui.d.ts. */
export function useHubbubRuntime(agent) {
  const store = useMemo(() => new AgentStore(agent), [agent])
  const { messages, isRunning, questions, error } = useSyncExternalStore(store.subscribe, store.getSnapshot, store.getSnapshot)
  const metadata = useMemo(() => (error === undefined ? {} : { error }), [error])
  const callback = useCallback((message) => toThreadMessage(message, agent), [agent])
  const adapters = useMemo(() => ({ attachments: makeAttachmentAdapter(agent) }), [agent])
  const runtime = useExternalStoreRuntime({
    messages: useExternalMessageConverter({ callback, messages, isRunning, metadata }),
    isRunning,
    isSendDisabled: questions.length > 0,
    adapters,
    onNew: (message) => store.send(toContent(message), makeContext(runtime)),
    onEdit: (message) => store.edit(message.sourceId, toContent(message)),
    onReload: (parentId, { sourceId }) => store.regenerate(parentId ?? sourceId),
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
function toThreadMessage({ id, role, content, toolCalls = [], toolCallId, error }, agent) {
  switch (role) {
    case 'user': return { id, role, content: typeof content === 'string' ? content : content.map((part) => toPart(part, agent)) }
    case 'assistant': return { id, role, content: [...toText(content), ...toolCalls.map(toCallPart)] }
    case 'reasoning': return { id, role: 'assistant', content: [{ type: 'reasoning', text: content }] }
    case 'tool': return { role, toolCallId, result: parseResult(content), isError: error !== undefined }
    default: return []
  }
}

const toText = (text) => (text ? [{ type: 'text', text }] : [])

const toCallPart = ({ id, function: { name, arguments: argsText } }) => ({ type: 'tool-call', toolCallId: id, toolName: name, argsText })

/** Convert a part of a user's message. The result contains the part itself, too: an edit sends it. */
function toPart(part, agent) {
  const { type, text, source, metadata } = part
  if (type === 'text') return { type, text }
  const { value, mimeType = '' } = source
  const filename = metadata?.name ?? metadata?.filename
  const common = { filename, providerMetadata: { hubbub: { part } } }
  const url = source.type === 'file' ? makeFileUrl(agent, value) : value
  if (type !== 'image') return { ...common, type: 'file', data: url, mimeType }
  return { ...common, type, image: source.type === 'data' ? `data:${mimeType};base64,${value}` : url }
}

/** Return the content of a message of AG-UI: a text, or parts if there are files. */
function toContent({ content, attachments = [] }) {
  const files = [...content, ...attachments.flatMap((attachment) => attachment.content)].flatMap(({ providerMetadata }) => providerMetadata?.hubbub?.part ?? [])
  const text = joinText(content)
  return files.length ? [...toText(text), ...files] : text
}

/** Return an adapter that uploads each file when the message is sent. */
const makeAttachmentAdapter = (agent) => ({
  accept: '*',
  add: async ({ file }) => ({
    ...{ id: newId(), type: file.type.startsWith('image/') ? 'image' : 'document', name: file.name, contentType: file.type, file },
    status: { type: 'requires-action', reason: 'composer-send' },
  }),
  send: async (attachment, { signal } = {}) => {
    const part = toPart(await uploadFile(agent, attachment.file, signal), agent)
    return { ...attachment, status: { type: 'complete' }, content: [part] }
  },
  remove: async () => {},
})

function parseResult(content) {
  try {
    return JSON.parse(content)
  } catch {
    return content
  }
}
