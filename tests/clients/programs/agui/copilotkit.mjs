// CopilotKit without its components: what its React, Vue and Angular packages are made of.

// /// script
// dependencies = ["@copilotkit/core@1.75.0", "@ag-ui/client@0.0.59", "rxjs@7.8.1"]
// ///

import { execFileSync } from 'node:child_process'
import { CopilotKitCore } from '@copilotkit/core'
import { args, run, url } from './scenario.mjs'

const TIMEOUT = 30_000 // in ms

async function open(agentId, threadId) {
  execFileSync('npm', ['install', '--no-save', '--no-audit', '--no-fund', '--silent', `${url}/client.tgz`])
  const { HubbubAgent } = await import('hubbub-client/agui')
  const agent = new HubbubAgent({ url: `${url}/api/v1/agents/${agentId}/agui`, threadId })
  const core = new CopilotKitCore({ agents__unsafe_dev_only: { default: agent } })
  return { core, agent: core.getAgent('default') }
}

/** Wait until an agent shows these texts. */
function until({ agent }, ...texts) {
  const shows = () => JSON.stringify(agent.messages.map(({ content }) => content ?? '')) === JSON.stringify(texts)
  return new Promise((resolve, reject) => {
    const fail = () => reject(new Error(JSON.stringify(agent.messages)))
    const timer = setTimeout(fail, TIMEOUT)
    const check = () => shows() && (clearTimeout(timer), resolve())
    agent.subscribe({ onMessagesChanged: () => void setTimeout(check) })
    check()
  })
}

async function tools() {
  const { core, agent } = await open('forecaster', 't1')
  const calls = []
  core.addTool({
    name: 'get_weather',
    description: 'the weather of a city',
    handler: async ({ city }) => {
      calls.push(city)
      return `sunny in ${city}`
    },
  })
  agent.addMessage({ id: 'u1', role: 'user', content: args[0] })
  await core.runAgent({ agent })
  return { calls, text: agent.messages.at(-1).content }
}

/** A page is closed in the middle of an answer. Two others show the answer, and one stops it. */
async function browsers() {
  const [first, second, third] = [await open('gated', 't1'), await open('gated', 't1'), await open('gated', 't1')]
  first.agent.addMessage({ id: 'u1', role: 'user', content: args[0] })
  first.core.runAgent(first).catch(() => {})
  await until(first, args[0], 'one ')
  await first.agent.detachActiveRun()
  for (const page of [second, third]) page.core.connectAgent(page).catch(() => {})
  for (const page of [second, third]) await until(page, args[0], 'one ')
  const wasRunning = third.agent.isRunning
  second.core.stopAgent(second)
  third.agent.addMessage({ id: 'u2', role: 'user', content: args[1] })
  await third.core.runAgent(third)
  await until(second, args[0], 'one ', args[1], 'one two')
  return { wasRunning, ids: second.agent.messages.map(({ id }) => id) }
}

await run({ tools, browsers })
