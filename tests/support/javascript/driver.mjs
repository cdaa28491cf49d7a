// Control client.js by lines of JSON: commands on standard input, results on standard output.
import { createInterface } from 'node:readline'
import WebSocket from 'ws'
import { connect } from './client.js'

let hub
const sessions = new Map()
const say = (line) => process.stdout.write(JSON.stringify(line) + '\n')
const failed = (error, id) => say({ kind: 'error', id, code: error.code ?? 'internal', message: error.message })

async function chat({ id, sessionId, message, clientMsgId }) {
  const texts = new Map()
  for await (const event of sessions.get(sessionId).chat(message, { clientMsgId })) {
    say({ kind: 'chat-event', id, event })
    if (event.type === 'stream') texts.set(event.messageId, (texts.get(event.messageId) ?? '') + event.content)
    else if (event.type === 'message') texts.set(event.messageId, event.content)
    else if (event.type === 'message_removed') event.messageIds.forEach((messageId) => texts.delete(messageId))
    else if (event.type === 'reset') texts.clear()
  }
  say({ kind: 'chat-end', id, text: [...texts.values()].join('') })
}

const commands = {
  connect({ url, token, tokens }) {
    const getToken = async () => tokens.shift() ?? Promise.reject(new Error('no token now'))
    hub = connect(url, { WebSocket, token: tokens ? getToken : token })
    hub.ready.catch((error) => failed(error, 'ready'))
    say({ kind: 'state', state: hub.state })
    const hasCloseCode = (state) => state === 'waiting' || state === 'closed'
    hub.on('state', (state) => say({ kind: 'state', state, code: hasCloseCode(state) ? hub.closeCode : undefined }))
  },
  session({ sessionId, ...options }) {
    const session = hub.session(sessionId, options)
    sessions.set(sessionId, session)
    session.on('event', (event) => event.seq !== undefined && say({ kind: 'event', sessionId, event }))
    session.on('reset', ({ reason }) => say({ kind: 'reset', sessionId, reason }))
    session.on('error', failed)
  },
  chat,
  async ask({ id, sessionId, message }) {
    say({ kind: 'answer', id, text: await sessions.get(sessionId).ask(message) })
  },
  async send({ id, sessionId, command }) {
    say({ kind: 'answer', id, ...(await sessions.get(sessionId).send(command)) })
  },
  cancel: ({ sessionId }) => sessions.get(sessionId).cancel(),
  close() {
    process.stdin.destroy() // the open input would keep this process alive; the client must not
    hub.close()
    say({ kind: 'closed' })
  },
}

const input = createInterface({ input: process.stdin })
input.on('line', async (line) => {
  const command = JSON.parse(line)
  try {
    await commands[command.do](command)
  } catch (error) {
    failed(error, command.id)
  }
})
