// @ts-nocheck: the packages of the peer dependencies are not among the tools of make lint-js

import { editMessage, regenerateAnswer } from './agent_commands.js'
import { newId } from './ids.js'
import { StoreListeners } from './store_listeners.js'

const ABORT = 'abort' // the code with which AG-UI's client ends a run after abortRun()
const RUN_SUFFIX = /-(r_[0-9a-z]+)$/ // the hub adds it to the ids of tool calls

/**
 * The state of a `HubbubAgent` for React: a snapshot, which is replaced at each change.
 *
 * The agent is connected as long as there is a listener.
 */
export class AgentStore {
  #agent
  #listeners = new StoreListeners(() => this.#open(), () => this.#close())
  #subscription
  #isUpdateDue = false
  #error
  #snapshot
  /** The end of the last run of this page. */
  #run = Promise.resolve()
  /** The results that are not sent yet. They are not in the agent's messages, because events may replace that list. */
  #results = []
  /** The calls whose tools this page runs: those of its own runs. */
  #ownCalls = new Set()
  /** The runs that this page has started with a command. */
  #ownRuns = new Set()

  constructor(agent) {
    this.#agent = agent
    this.#snapshot = this.#makeSnapshot()
  }

  getSnapshot = () => this.#snapshot

  subscribe = this.#listeners.subscribe

  /** Send a user's message; *content* is a text or AG-UI's parts. Never rejects: a failure is in `error`. */
  async send(content, context) {
    this.#addResults({ id: newId(), role: 'user', content })
    await this.run(context)
  }

  /** Replace a user's message, and remove the messages after it. The connection brings the new one. Never rejects. */
  edit = (id, content) => this.#rewrite(editMessage(this.#agent, id, content))

  /** Request a new answer to a user's message, and remove the messages after it. Never rejects. */
  regenerate = (id) => this.#rewrite(regenerateAnswer(this.#agent, id))

  async #rewrite(command) {
    this.#error = undefined
    try {
      this.#ownRuns.add(await command)
    } catch (error) {
      this.#error = explain(error)
    }
    this.#update()
  }

  /**
   * Add the result of a tool call. The agent goes on when all calls of its answer have results. So if another page has
   * started the run, this page now runs the other tools, too.
   */
  async addResult({ toolCallId, result, isError }, context) {
    const content = typeof result === 'string' ? result : JSON.stringify(result ?? null)
    this.#results.push({ id: newId(), role: 'tool', toolCallId, content, ...(isError && { error: content }) })
    await this.#run // the call is in its answer
    const openCalls = listOpenCalls([...this.#agent.messages, ...this.#results])
    for (const id of openCalls) this.#ownCalls.add(id)
    this.#update()
    if (openCalls.length || !this.#listResults().length) return
    this.#addResults()
    await this.run(context)
  }

  run(parameters) {
    this.#run = this.#runAgent(parameters)
    return this.#run
  }

  async #runAgent(parameters) {
    this.#error = undefined
    const subscriber = { onToolCallStartEvent: ({ event }) => void this.#ownCalls.add(event.toolCallId) }
    try {
      await this.#agent.runAgent(parameters, subscriber)
    } catch (error) {
      this.#error = explain(error)
    }
    this.#update()
  }

  isOwnCall = (toolCallId) => this.#ownCalls.has(toolCallId) || this.#ownRuns.has(RUN_SUFFIX.exec(toolCallId)?.[1])

  #open() {
    if (this.#subscription) return
    const update = () => this.#update()
    this.#subscription = this.#agent.subscribe({
      onRunInitialized: update,
      onEvent: update,
      onMessagesChanged: update,
      onRunFinalized: update,
      onRunStartedEvent: ({ event, input }) => {
        if (event.runId !== input.runId) this.#error = undefined // not for the run with the snapshot, which has the id of the request
      },
      // connectAgent() has returned when no answer was written, and the hub may refuse a later connection of it.
      onRunFailed: ({ error }) => void (error.status >= 400 && error.status < 500 && (this.#error = explain(error))),
      onRunErrorEvent: ({ event: { code, message } }) => void (this.#error = code === ABORT ? undefined : message),
    })
    this.#agent.connectAgent().catch((error) => {
      this.#error = explain(error)
      update()
    })
  }

  #close() {
    this.#subscription?.unsubscribe()
    this.#subscription = undefined
    this.#agent.detachActiveRun()
  }

  /** Replace the snapshot a moment later, because AG-UI's client changes the agent after it has called subscribers. */
  #update() {
    if (this.#isUpdateDue) return
    this.#isUpdateDue = true
    setTimeout(() => {
      this.#isUpdateDue = false
      this.#snapshot = this.#makeSnapshot()
      this.#listeners.notify()
    }, 0)
  }

  #addResults(...messages) {
    this.#agent.addMessages([...this.#listResults(), ...messages])
    this.#results = []
  }

  /** Return the results to calls that have none, in the order of the calls. Another page may have sent one. */
  #listResults() {
    const { messages } = this.#agent
    const results = listResults(messages)
    const calls = listCalls(messages)
    return this.#results
      .filter(({ toolCallId }) => !results.has(toolCallId))
      .sort((first, second) => calls.indexOf(first.toolCallId) - calls.indexOf(second.toolCallId))
  }

  #makeSnapshot() {
    const { messages, isRunning, pendingInterrupts } = this.#agent
    return { messages: [...messages, ...this.#listResults()], isRunning, questions: [...pendingInterrupts], error: this.#error }
  }
}

/** Return the text of the hub's answer, or else of the error. */
const explain = ({ payload, message }) => payload?.error ?? message

/** Return the ids of the calls after the last user's message that have no result. */
function listOpenCalls(messages) {
  const answers = messages.slice(messages.findLastIndex(({ role }) => role === 'user') + 1)
  const results = listResults(answers)
  return listCalls(answers).filter((id) => !results.has(id))
}

const listCalls = (messages) => messages.flatMap(({ toolCalls = [] }) => toolCalls.map(({ id }) => id))

/** Return the ids of the calls that have a result. */
const listResults = (messages) => new Set(messages.map(({ toolCallId }) => toolCallId))
