// Types that openapi-typescript generates, and openapi-fetch, which uses them.
//
// /// script
// dependencies = ["openapi-typescript@7.13.0", "openapi-fetch@0.17.0", "typescript@5.9.3"]
// ///

import { execute, importTypeScript, run, url } from './scenario.mjs'

const MODULE = `
import createClient from 'openapi-fetch'
import type { components, paths } from './schema.js'

type Message = components['schemas']['HistoryMessage']
const ID = { path: { id: 's1' } }
const hub = createClient<paths>({ baseUrl: '${url}' })

async function ask (message: string): Promise<string> {
  // @ts-expect-error: the field is agentId
  const mistake: components['schemas']['ChatBody'] = { agentID: 'echo', message }
  const body = { agentId: 'echo', message }
  const { data } = await hub.POST('/api/v1/sessions/{id}/chat', { params: { ...ID, query: { wait: true } }, body })
  if (typeof data !== 'object' || !('content' in data)) throw new Error('no answer')
  return data.content
}

async function readPages (): Promise<Message[][]> {
  const pages: Message[][] = []
  for (let after: string | null | undefined = ''; after != null;) {
    const query: { limit: number, after?: string } = after === '' ? { limit: 1 } : { limit: 1, after }
    const { data, error } = await hub.GET('/api/v1/sessions/{id}/messages', { params: { ...ID, query } })
    if (error !== undefined) throw new Error(error.error)
    pages.push(data.data)
    after = data.next
  }
  return pages
}

async function storeFile (content: string): Promise<string[]> {
  const { data, error } = await hub.POST('/api/v1/files', {
    params: { query: { sessionId: 's1', name: 'notes.txt' } },
    body: content,
    bodySerializer: (body) => body,
    headers: { 'Content-Type': 'text/plain' },
  })
  if (error !== undefined) throw new Error(error.error)
  const { fileId: id, name } = data
  const file = await hub.GET('/api/v1/files/{id}', { params: { path: { id } }, parseAs: 'text' })
  return [name, file.data ?? '']
}

export async function use () {
  const session = await hub.POST('/api/v1/sessions', { body: { sessionId: 's1' } })
  const answer = await ask('hello there')
  const pages = await readPages()
  const file = await storeFile('Otters hold hands.')
  const { error, response } = await hub.GET('/api/v1/sessions/{id}', { params: { path: { id: 'unknown' } } })
  return {
    session: session.data?.sessionId,
    answer,
    pages: pages.map((page) => page.map((message) => message.content)),
    file,
    error: [response.status, error?.code],
  }
}
`

async function use () {
  const output = execute('openapi-typescript', `${url}/openapi.json`, '--output', 'schema.ts')
  const module = await importTypeScript(MODULE)
  return { output, ...await module.use() }
}

run({ use })
