// Control client.js by lines of JSON: commands on standard input, results on standard output.
import { createInterface } from 'node:readline'
import WebSocket from 'ws'
import { connect } from './client.js'

let hub
let reply // ends the wait of the function that replies to a question
const sessions = new Map()
const say = (line) => process.stdout.write(JSON.stringify(line) + '\n')
const failed = (error, id) => say({ kind: 'error', id, code: error.code ?? 'internal', message: error.message })

const find = ({ sessionId, handle }) => sessions.get(handle ?? sessionId)
const toFile = ({ name, type, text }) => new File([text], name, { type })

/** The options of a chat: the fields of a command but those that name it. */
function chatOptions({ clientMsgId, ifBusy, parts, metadata, files }) {
  return { clientMsgId, ifBusy, parts, metadata, files: files?.map(toFile) }
}

async function chat({ id, message, ...command }) {
  const texts = new Map()
  for await (const event of find(command).chat(message, chatOptions(command))) {
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
  session({ sessionId, handle, ...options }) {
    const session = hub.session(sessionId, options)
    sessions.set(handle ?? sessionId, session)
    session.on('event', (event) => event.seq !== undefined && say({ kind: 'event', sessionId, event, handle }))
    session.on('reset', ({ reason }) => say({ kind: 'reset', sessionId, reason, handle }))
    session.on('error', failed)
  },
  chat,
  async ask({ id, message, replies, ...command }) {
    const onQuestion = async (question) => {
      say({ kind: 'question', message: question.message })
      const { payload } = await new Promise((resolve) => { reply = resolve })
      return payload ?? Promise.reject(new Error("'payload'"))
    }
    say({ kind: 'answer', id, text: await find(command).ask(message, { ...chatOptions(command), onQuestion: replies && onQuestion }) })
  },
  reply: (command) => reply(command),
  async resume({ id, interruptId, payload, status, ...command }) {
    await find(command).resume(interruptId, payload, status)
    say({ kind: 'done', id })
  },
  async upload({ id, text, name, type, ...command }) {
    say({ kind: 'done', id, value: await find(command).upload(text, { name, type }) })
  },
  async files({ id, ...command }) {
    say({ kind: 'done', id, value: await find(command).listFiles() })
  },
  async read({ id, fileId, ...command }) {
    say({ kind: 'done', id, value: await (await find(command).readFile(fileId)).text() })
  },
  async delete({ id, fileId, ...command }) {
    await find(command).deleteFile(fileId)
    say({ kind: 'done', id })
  },
  async history({ id, last, ...command }) {
    say({ kind: 'done', id, value: (await find(command).send({ type: 'subscribe', history: last })).history })
  },
  leave(command) {
    find(command).close()
    sessions.delete(command.handle ?? command.sessionId)
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
