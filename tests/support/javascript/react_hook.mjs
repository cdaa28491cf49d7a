// node react_hook.mjs URL FOLDER: the hook with React itself, on a hub with the agents of test_react_hook.py.
import { writeFileSync } from 'node:fs'
import { createElement, StrictMode } from 'react'
import { act, create } from 'react-test-renderer'
import WebSocket from 'ws'
import { connect } from './client.js'
import { useHubbub } from './react.js'

globalThis.IS_REACT_ACT_ENVIRONMENT = true
const [url, folder] = process.argv.slice(2)
const warnings = []
console.error = (...words) => warnings.push(words.join(' '))
const checks = {}
const hub = connect(url, { WebSocket })
const seen = [] // each rendered state
let current

function Probe({ sessionId, agent }) {
  current = useHubbub(hub, sessionId, { agent })
  seen.push(current)
  return null
}
const element = (sessionId, agent) => createElement(StrictMode, null, createElement(Probe, { sessionId, agent }))
/** Let React render until a state passes the test. */
async function until(test) {
  const timeout = setTimeout(() => { throw new Error(`no such state: ${JSON.stringify(current)}`) }, 20_000)
  while (!test(current)) await act(() => new Promise((resolve) => setTimeout(resolve, 5)))
  clearTimeout(timeout)
}
const contents = () => current.messages.map(({ content }) => content)
const last = () => current.messages.at(-1)

let renderer
await act(async () => { renderer = create(element('s1', 'gated')) })
checks['begins empty'] = contents().length === 0 && !current.isRunning
await until(({ connection }) => connection === 'live')

// A message is shown at once, then accepted and answered.
let sent
await act(async () => { sent = current.send(`${folder}/go`, { metadata: { from: 'react' } }) })
await until(() => current.isRunning && last().content === 'one ')
checks['a message is pending at first'] = seen.some(({ messages }) => messages.at(-1)?.isPending)
checks['a message is not shown twice'] = seen.every(({ messages }) => messages.filter(({ role }) => role === 'user').length < 2)
checks['send resolves when it is accepted'] = (await sent).status === 'started'
checks['an answer grows'] = last().isStreaming && last().agentId === 'gated'
const question = current.messages[0]
writeFileSync(`${folder}/go`, '')
await until(() => !current.isRunning)
checks['an answer ends'] = last().content === 'one two' && !last().isStreaming && last().stopReason === undefined
checks['an unchanged message is the same object'] = current.messages[0] === question && question.metadata.from === 'react'

// A component that is mounted later has the history.
let later
function Later() {
  later = useHubbub(hub, 's1')
  return null
}
let laterRenderer
await act(async () => { laterRenderer = create(createElement(Later)) })
await until(() => later.messages.length === 2)
checks['a later component has the history'] = later.messages[1].content === 'one two' && later.messages[1].agentId === 'gated'

// Questions.
await act(async () => { current.send('ask', { agent: 'asker' }) })
await until(() => current.questions.length === 1)
checks['a question is shown'] = current.questions[0].message === 'Which colour?' && current.isRunning
await act(async () => { await current.answer(current.questions[0].id, 'green') })
await until(() => !current.isRunning)
checks['a question is answered'] = last().content === 'green' && current.questions.length === 0
checks['both components show it'] = later.messages.at(-1).content === 'green'

// Tools, reasoning, and failures.
await act(async () => { current.send('x', { agent: 'worker' }) })
await until(() => last().role === 'assistant' && !current.isRunning)
const work = current.messages.at(-2)
checks['a tool call is shown'] = JSON.stringify(work.toolCalls) === '[{"id":"t1","name":"add","arguments":"{\\"a\\":1}","result":"3"}]'
checks['reasoning is shown'] = work.reasoning === 'let me think' && last().content === 'three'
await act(async () => { current.send('x', { agent: 'failing' }) })
await until(() => last().error)
await until(() => !current.isRunning)
checks['a failed answer has its error'] = last().error.code === 'out_of_luck' && last().stopReason === 'error' && last().content === 'some '
await act(async () => { await current.send('x', { agent: 'nobody' }) })
checks['a refused message is an error'] = current.error.code === 'unknown_agent' && !current.messages.some(({ isPending }) => isPending)
await act(async () => { current.send(`${folder}/never`) })
await until(() => last().content === 'one ')
checks['the next message removes the error'] = current.error === undefined
await act(async () => { await current.stop() })
await until(() => !current.isRunning)
checks['stop ends the answer'] = last().stopReason === 'cancelled'
await act(async () => { await current.stop() })
checks['to stop twice is no error'] = current.error === undefined

// Another session, and the end.
await act(async () => { renderer.update(element('s2', 'gated')) })
await until(({ connection }) => connection === 'live')
checks['another session begins empty'] = contents().length === 0
await act(async () => { renderer.unmount() })
await act(async () => { laterRenderer.unmount() })
await new Promise((resolve) => setTimeout(resolve, 20))
await hub.session('s3').send({ type: 'subscribe', sessionId: 's3' })
checks['no warnings'] = warnings.filter((text) => !text.includes('react-test-renderer is deprecated')).join()
console.log(JSON.stringify(checks))
process.stdin.resume() // until the test has looked at the subscriptions
process.stdin.on('end', () => hub.close())
