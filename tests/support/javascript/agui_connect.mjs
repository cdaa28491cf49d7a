// node agui_connect.mjs URL THREAD [KEY]: connect an agent to a session. Each line of the input is a JSON list of the name
// of a command and its arguments. Each change is printed as a line of JSON.
import { createInterface } from 'node:readline'
import { HubbubAgent } from './agui.js'

const [url, threadId, key] = process.argv.slice(2)
console.warn = (...words) => console.log(JSON.stringify({ warning: words.join(' ') }))
let requests = 0
const headers = key ? { Authorization: `Bearer ${key}` } : {}
const agent = new HubbubAgent({ url, threadId, headers, fetch: (...words) => (requests++, fetch(...words)) })
let mark, release
let isConnected = false // whether connectAgent() has returned
let mustHold = false
const show = () => {
  const { messages, isRunning, pendingInterrupts: questions, state, delay } = agent
  console.log(JSON.stringify({ messages, isRunning, isConnected, questions, state, mark, requests, delay }))
}
agent.subscribe({ onMessagesChanged: show, onRunFinalized: show, onRunFailed: ({ error }) => console.log(JSON.stringify({ error: String(error) })) })
agent.subscribe({
  onTextMessageContentEvent: () => {
    if (!mustHold) return undefined
    mustHold = false
    mark = 'held'
    show()
    return new Promise((resolve) => (release = resolve))
  },
})
async function connect () {
  isConnected = false
  await agent.connectAgent()
  isConnected = true
}
void connect().then(show, (error) => console.log(JSON.stringify({ error: String(error) })))
let run = 0
const commands = {
  say: async (id, content) => {
    agent.messages.push({ id, role: 'user', content })
    const end = agent.runAgent({ runId: `${id}-run` })
    release?.()
    await end
  },
  answer: async (payload) => {
    const resume = agent.pendingInterrupts.map(({ id }) => ({ interruptId: id, status: 'resolved', payload }))
    await agent.runAgent({ runId: `answer-${process.pid}-${run++}`, resume })
  },
  hold: () => void (mustHold = true), // let the next piece of text wait until `say`
  connect,
  detach: () => agent.detachActiveRun(),
  stop: () => agent.abortRun(),
  look: (word) => void (mark = word),
  close: () => process.exit(0),
}
for await (const line of createInterface({ input: process.stdin })) {
  const [name, ...words] = JSON.parse(line)
  Promise.resolve(commands[name](...words)).then(show, (error) => console.log(JSON.stringify({ error: String(error) })))
}
