// node agui_turns.js URL THREAD TURNS: run an agent with AG-UI's own client, once for each turn of a JSON list; print
// its events, outcomes, errors and messages. Each deviation from the protocol that the client warns of is an error.
import { HttpAgent, buildResumeArray } from '@ag-ui/client'

const [url, threadId, turns] = process.argv.slice(2)
const agent = new HttpAgent({ url, threadId })
const output = { events: [], outcomes: [], usage: [], errors: [] }
console.warn = (...words) => void output.errors.push(words.join(' '))
const subscriber = {
  onEvent: ({ event }) => void output.events.push(event.type),
  onRunFinishedEvent: ({ event, outcome }) => void (output.outcomes.push(outcome), output.usage.push(event.usage ?? null)),
  onRunErrorEvent: ({ event }) => void output.outcomes.push(event.code),
}
let run = 0
for (const { message, results, answer, ...parameters } of JSON.parse(turns)) {
  run += 1
  if (results) {
    const answered = agent.messages.map((one) => one.toolCallId)
    const calls = agent.messages.flatMap((one) => one.toolCalls ?? []).filter(({ id }) => !answered.includes(id))
    agent.messages.push(...calls.map(({ id, function: { name } }) => ({ id: `t-${id}`, role: 'tool', toolCallId: id, content: results[name] })))
  }
  if (message) agent.messages.push({ id: `u${run}`, role: 'user', content: message })
  const answers = agent.pendingInterrupts.map(({ id }) => [id, { status: 'resolved', payload: answer }])
  const resume = answers.length ? buildResumeArray(agent.pendingInterrupts, Object.fromEntries(answers)) : undefined
  try {
    await agent.runAgent({ runId: `${threadId}-${run}`, resume, ...parameters }, subscriber)
  } catch (error) {
    output.errors.push(String(error))
  }
}
console.log(JSON.stringify({ ...output, messages: agent.messages, state: agent.state }))
