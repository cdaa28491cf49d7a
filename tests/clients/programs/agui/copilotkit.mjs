// CopilotKit without its components: what its React, Vue and Angular packages are made of.

// /// script
// dependencies = ["@copilotkit/core@1.75.0", "@ag-ui/client@0.0.59", "rxjs@7.8.1"]
// ///

import { execFileSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { args, run, url } from './scenario.mjs'
import { watch } from './watch.mjs'

/** Return the module in docs/copilotkit.md. */
async function install() {
  execFileSync('npm', ['install', '--no-save', '--no-audit', '--no-fund', '--silent', `${url}/client.tgz`])
  writeFileSync('chat.mjs', args.at(-1))
  return await import('./chat.mjs')
}

async function tools() {
  const { openChat, say } = await install()
  const page = openChat(url, 'forecaster', 't1')
  const calls = []
  page.core.addTool({
    name: 'get_weather',
    description: 'the weather of a city',
    handler: async ({ city }) => {
      calls.push(city)
      return `sunny in ${city}`
    },
  })
  await say(page, args[0])
  return { calls, text: page.agent.messages.at(-1).content }
}

/** A page is left in the middle of an answer. Two others show the answer, and one stops it. */
async function browsers() {
  const { openChat, say, showSession, stop } = await install()
  const [first, second, third] = [1, 2, 3].map(() => {
    const page = openChat(url, 'gated', 't1')
    return { ...page, until: watch(page.agent) }
  })
  void say(first, args[0])
  await first.until(args[0], 'one ')
  await first.agent.detachActiveRun()
  for (const page of [second, third]) showSession(page)
  for (const page of [second, third]) await page.until(args[0], 'one ')
  const wasRunning = third.agent.isRunning
  stop(second)
  await say(third, args[1])
  await second.until(args[0], 'one ', args[1], 'one two')
  await say(second, args[1])
  await third.until(args[0], 'one ', args[1], 'one two', args[1], 'one two')
  return { wasRunning, ids: [second, third].map(({ agent }) => agent.messages.map(({ id }) => id)) }
}

await run({ tools, browsers })
