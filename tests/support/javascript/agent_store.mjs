// node agent_store.mjs URL THREAD KEY: open a store with one listener, and print each snapshot as a line of JSON.
import { HubbubAgent } from './agui.js'
import { AgentStore } from './client_js/agent_store.js'

const [url, threadId, key] = process.argv.slice(2)
console.error = () => {} // AG-UI's client prints each failure
const store = new AgentStore(new HubbubAgent({ url, threadId, headers: { Authorization: `Bearer ${key}` } }))
store.subscribe(() => {
  const { messages, error: shown } = store.getSnapshot()
  console.log(JSON.stringify({ messages, shown }))
})
