// A client of fetch() that orval generates.
//
// /// script
// dependencies = ["orval@8.38.0", "typescript@7.0.2", "node@26.10.0"]
// ///

import { writeFileSync } from 'node:fs'
import { execute, importTypeScript, run, url } from './scenario.mjs'

const CONFIGURATION = {
  hub: { input: `${url}/openapi.json`, output: { target: 'api.ts', client: 'fetch', baseUrl: url } },
}

const MODULE = `
import { getFile, getMessages, postChat, postFile, postSession, showSession } from './api.js'
import type { ChatBody, HistoryMessage } from './api.js'

async function ask (message: string): Promise<string> {
  // @ts-expect-error: the field is agentId
  const mistake: ChatBody = { agentID: 'echo', message }
  const { data, status } = await postChat('s1', { agentId: 'echo', message }, { wait: true })
  if (status !== 200 || typeof data === 'string' || !('content' in data)) throw new Error('no answer')
  return data.content
}

async function readPages (): Promise<HistoryMessage[][]> {
  const pages: HistoryMessage[][] = []
  for (let after: string | null | undefined = ''; after != null;) {
    const { data, status } = await getMessages('s1', after === '' ? { limit: 1 } : { limit: 1, after })
    if (status !== 200) throw new Error(data.error)
    pages.push(data.data)
    after = data.next
  }
  return pages
}

async function storeFile (content: string): Promise<string[]> {
  const { data, status } = await postFile(new Blob([content]), { sessionId: 's1', name: 'notes.txt' })
  if (status !== 201) throw new Error(data.error)
  const file = await getFile(data.fileId)
  if (file.status !== 200) throw new Error('no file')
  return [data.name, await file.data.text()]
}

export async function use () {
  const session = await postSession({ sessionId: 's1' })
  const answer = await ask('hello there')
  const pages = await readPages()
  const file = await storeFile('Otters hold hands.')
  const unknown = await showSession('unknown')
  return {
    session: session.status === 201 && session.data.sessionId,
    answer,
    pages: pages.map((page) => page.map((message) => message.content)),
    file,
    error: [unknown.status, unknown.status === 404 && unknown.data.code],
  }
}
`

async function use () {
  writeFileSync('orval.config.mjs', `export default ${JSON.stringify(CONFIGURATION)}`)
  const output = execute('orval', '--config', 'orval.config.mjs')
  const module = await importTypeScript(MODULE)
  return { output, ...await module.use() }
}

run({ use })
