// @ts-nocheck: the packages of the peer dependencies are not among the tools of make lint-js

import { errorFromResponse } from './errors.js'
import { makePart } from './file_part.js'

/** Send a command for the session of an AG-UI agent, and return the answer of the hub. */
export async function postCommand(agent, name, fields) {
  const headers = { ...agent.headers, 'Content-Type': 'application/json' }
  return await fetchJson(agent, `${makeSessionUrl(agent)}/${name}`, { method: 'POST', headers, body: JSON.stringify(fields) })
}

/** Replace a user's message by *content* in AG-UI's form, and remove the messages after it. Return the id of the run. */
export async function editMessage(agent, id, content) {
  const fields = typeof content === 'string' ? { message: content } : { message: joinText(content), parts: content }
  return (await postCommand(agent, 'edit', { messageId: await findMessageId(agent, id), ...fields })).runId
}

/** Request a new answer to a user's message, and remove the messages after it. Return the id of the run. */
export async function regenerateAnswer(agent, id) {
  return (await postCommand(agent, 'regenerate', { messageId: await findMessageId(agent, id) })).runId
}

/** Return the hub's id of a message. In AG-UI, a user's message has the id that its client has chosen. */
async function findMessageId(agent, id) {
  for (let query = 'order=desc', page; ; query = `order=desc&after=${encodeURIComponent(page.next)}`) {
    page = await fetchJson(agent, `${makeSessionUrl(agent)}/messages?${query}`, { headers: agent.headers })
    const message = page.data.find(({ messageId, metadata }) => messageId === id || metadata?.aguiMessageIds?.includes?.(id))
    if (message || !page.next) return message?.messageId ?? id
  }
}

/** Upload a file to the session of an AG-UI agent, and return the part of a message that names it. */
export async function uploadFile(agent, file, signal) {
  const query = new URLSearchParams({ sessionId: agent.threadId, name: file.name || 'file' })
  const headers = { ...agent.headers, 'Content-Type': file.type || 'application/octet-stream' }
  return makePart(await fetchJson(agent, `${makeApiUrl(agent)}/files?${query}`, { method: 'POST', headers, body: file, signal }))
}

export const makeFileUrl = (agent, fileId) => `${makeApiUrl(agent)}/files/${encodeURIComponent(fileId)}`

export const joinText = (parts) => parts.flatMap(({ type, text }) => (type === 'text' ? [text] : [])).join('\n')

const makeApiUrl = ({ url }) => url.replace(/\/agents\/[^/]+\/agui\/?$/, '')

const makeSessionUrl = (agent) => `${makeApiUrl(agent)}/sessions/${encodeURIComponent(agent.threadId)}`

async function fetchJson(agent, url, options) {
  const response = await agent.fetch(url, options)
  if (!response.ok) throw await errorFromResponse(response)
  return await response.json()
}
