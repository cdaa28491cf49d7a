// node agui_connect.mjs URL THREAD: connect an agent to a session. Each line of the input is a JSON list of the name of
// a method and its arguments: `stop`, `run`, `say`, `answer`, `look`, `hold`, `connect`, `detach`, `close`. Each change is
// printed as a line of JSON.
import { createInterface } from 'node:readline'
import { HubbubAgent } from './agui.js'

const [url, threadId] = process.argv.slice(2)
console.warn = (...words) => console.log(JSON.stringify({ warning: words.join(' ') }))
let requests = 0
const agent = new HubbubAgent({ url, threadId, fetch: (...words) => (requests++, fetch(...words)) })
let mark, release
let mustHold = false
const show = () => {
  const { messages, isRunning, pendingInterrupts, state } = agent
  console.log(JSON.stringify({ messages, isRunning, questions: pendingInterrupts, state, mark, requests }))
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
void agent.connectAgent().catch((error) => console.log(JSON.stringify({ error: String(error) })))
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
  connect: () => agent.connectAgent(),
  detach: () => agent.detachActiveRun(),
  stop: () => agent.abortRun(),
  look: (word) => void (mark = word),
  close: () => process.exit(0),
}
for await (const line of createInterface({ input: process.stdin })) {
  const [name, ...words] = JSON.parse(line)
  Promise.resolve(commands[name](...words)).then(show, (error) => console.log(JSON.stringify({ error: String(error) })))
}
