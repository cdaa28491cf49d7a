// node agui_resume.js URL THREAD MESSAGE: run an agent, answer "yes" to each question; print the questions and messages.
import { HttpAgent, buildResumeArray } from '@ag-ui/client'

const [url, threadId, message] = process.argv.slice(2)
const agent = new HttpAgent({ url, threadId, initialMessages: [{ id: 'u1', role: 'user', content: message }] })
const questions = []
const outcomes = []
let run = 1
let resume
do {
  await agent.runAgent({ runId: `run-${run++}`, resume }, { onRunFinishedEvent: ({ outcome }) => void outcomes.push(outcome) })
  questions.push(...agent.pendingInterrupts.map((interrupt) => interrupt.message))
  const answers = agent.pendingInterrupts.map(({ id }) => [id, { status: 'resolved', payload: 'yes' }])
  resume = buildResumeArray(agent.pendingInterrupts, Object.fromEntries(answers))
} while (resume.length)
console.log(JSON.stringify({ asked: questions, outcomes, messages: agent.messages, pending: agent.pendingInterrupts.length }))
