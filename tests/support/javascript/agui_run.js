// node agui_run.js URL THREAD MESSAGE: run an agent with AG-UI's own client; print its events and messages.
import { HttpAgent } from '@ag-ui/client'

const [url, threadId, message] = process.argv.slice(2)
const agent = new HttpAgent({ url, threadId, initialMessages: [{ id: 'u1', role: 'user', content: message }] })
const events = []
await agent.runAgent({ runId: 'run-1' }, { onEvent: ({ event }) => void events.push(event.type) }).catch(() => {})
console.log(JSON.stringify({ events, messages: agent.messages, state: agent.state }))
