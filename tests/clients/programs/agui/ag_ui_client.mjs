// AG-UI's own client. Whatever it warns of is an error.

// /// script
// dependencies = ["@ag-ui/client@1.0.0", "rxjs@7.8.1"]
// ///

import { execFileSync } from 'node:child_process'
import { HttpAgent, buildResumeArray } from '@ag-ui/client'
import { args, run, url } from './scenario.mjs'
import { watch } from './watch.mjs'

const warnings = []
console.warn = console.error = (...words) => void warnings.push(words.join(' '))

function check(scenario) {
  return async () => {
    const result = await scenario()
    if (warnings.length) throw new Error(warnings.join('\n'))
    return result
  }
}

const address = (agentId) => `${url}/api/v1/agents/${agentId}/agui`

function open(agentId, Agent = HttpAgent) {
  const agent = new Agent({ url: address(agentId), threadId: 't1' })
  return Object.assign(agent, { until: watch(agent) })
}

async function say(agent, text, parameters, subscriber) {
  agent.addMessage({ id: crypto.randomUUID(), role: 'user', content: text })
  return await agent.runAgent(parameters, subscriber)
}

async function stream() {
  const pieces = []
  await say(open('echo'), args[0], {}, { onTextMessageContentEvent: ({ event }) => void pieces.push(event.delta) })
  return pieces
}

/** Two runs whose agent uses the same id of a call. */
async function tools() {
  const agent = open('forecaster')
  const parameters = { tools: [{ name: 'get_weather', description: 'the weather of a city', parameters: { type: 'object' } }] }
  const calls = []
  while (calls.length < 2) {
    await say(agent, args[0], parameters)
    const call = agent.messages.at(-1).toolCalls[0]
    calls.push(JSON.parse(call.function.arguments).city)
    agent.addMessage({ id: crypto.randomUUID(), role: 'tool', toolCallId: call.id, content: 'sunny in Rome' })
    await agent.runAgent(parameters)
  }
  const ids = agent.messages.map(({ id }) => id)
  if (new Set(ids).size !== ids.length) throw new Error(JSON.stringify(agent.messages))
  return { calls: [...new Set(calls)], text: agent.messages.at(-1).content }
}

async function questions() {
  const agent = open('asker')
  const outcomes = []
  const note = { onRunFinishedEvent: ({ event }) => void outcomes.push(event.outcome.type) }
  await say(agent, 'go', {}, note)
  const pending = agent.pendingInterrupts
  const answers = { [pending[0].id]: { status: 'resolved', payload: 'yes' } }
  await agent.runAgent({ resume: buildResumeArray(pending, answers) }, note)
  return { asked: pending.map(({ message }) => message), outcomes, texts: agent.messages.map(({ content }) => content) }
}

/** One answer is cancelled in the hub, one by the client. The next message is answered at once. */
async function cancel() {
  const [agent, outcomes] = [open('gated'), []]
  const note = { onRunFinishedEvent: ({ event }) => void outcomes.push(event.outcome.type) }
  const first = say(agent, 'closed', {}, note)
  await agent.until('closed', 'one ')
  await fetch(`${url}/api/v1/sessions/t1/cancel`, { method: 'POST', body: '{}', headers: { 'Content-Type': 'application/json' } })
  await first
  const second = say(agent, 'shut', {}, note)
  await agent.until('closed', 'one ', 'shut', 'one ')
  agent.abortRun()
  await second
  await say(agent, args[0], {}, note)
  return { outcomes, text: agent.messages.at(-1).content }
}

async function state() {
  const agent = open('counter')
  agent.setState({ count: 1 })
  await say(agent, 'go')
  await say(agent, 'go')
  return agent.state
}

/** A page is left in mid-answer. Two other agents connect, and one stops the answer. */
async function browsers() {
  execFileSync('npm', ['install', '--no-save', '--no-audit', '--no-fund', '--silent', `${url}/client.tgz`])
  const { HubbubAgent } = await import('hubbub-client/agui')
  const agents = [1, 2, 3].map(() => open('gated', HubbubAgent))
  void say(agents[0], args[0])
  await agents[0].until(args[0], 'one ')
  await agents[0].detachActiveRun()
  const [second, third] = agents.slice(1)
  for (const agent of [second, third]) void agent.connectAgent()
  for (const agent of [second, third]) await agent.until(args[0], 'one ')
  const wasRunning = third.isRunning
  second.abortRun()
  await say(third, args[1])
  await second.until(args[0], 'one ', args[1], 'one two')
  await say(second, args[1])
  await third.until(args[0], 'one ', args[1], 'one two', args[1], 'one two')
  return { wasRunning, ids: [second, third].map(({ messages }) => messages.map(({ id }) => id)) }
}

const scenarios = { stream, tools, questions, cancel, state, browsers }
await run(Object.fromEntries(Object.entries(scenarios).map(([name, scenario]) => [name, check(scenario)])))
