// node agui_resume.js URL THREAD MESSAGE: answers "yes" to whatever a run asks, and prints what came of it.
import { HttpAgent, buildResumeArray } from '@ag-ui/client'

const [url, threadId, message] = process.argv.slice(2)
const agent = new HttpAgent({ url, threadId, initialMessages: [{ id: 'u1', role: 'user', content: message }] })
const asked = []
const outcomes = []
let run = 1
let resume
do {
  await agent.runAgent({ runId: `run-${run++}`, resume }, { onRunFinishedEvent: ({ outcome }) => void outcomes.push(outcome) })
  asked.push(...agent.pendingInterrupts.map((one) => one.message))
  const answers = agent.pendingInterrupts.map((one) => [one.id, { status: 'resolved', payload: 'yes' }])
  resume = buildResumeArray(agent.pendingInterrupts, Object.fromEntries(answers))
} while (resume.length)
console.log(JSON.stringify({ asked, outcomes, messages: agent.messages, pending: agent.pendingInterrupts.length }))
