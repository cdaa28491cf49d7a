// @ts-nocheck: the packages of the peer dependencies are not among the tools of make lint-js

import { newId } from './ids.js'

/**
 * The state of a `HubbubAgent` for React: a snapshot, which is replaced at each change.
 *
 * The agent is connected as long as there is a listener.
 */
export class AgentStore {
  #agent
  #listeners = new Set()
  #subscription
  #isUpdateDue = false
  #error
  #snapshot
  /** The end of the last run of this page. */
  #run = Promise.resolve()
  /** The results that are not sent yet. The messages of the agent may be replaced meanwhile. */
  #results = []
  /** The tool calls of runs that this page has started. In all other runs, another page executes the tools. */
  #ownCalls = new Set()

  constructor(agent) {
    this.#agent = agent
    this.#snapshot = this.#makeSnapshot()
  }

  getSnapshot = () => this.#snapshot

  subscribe = (listener) => {
    this.#listeners.add(listener)
    this.#open()
    return () => {
      this.#listeners.delete(listener)
      // Not at once: in its strict mode, React unsubscribes and subscribes again.
      setTimeout(() => this.#listeners.size || this.#close(), 0)
    }
  }

  /** Send a user's text. Never rejects: a failure is in `error`. */
  async send(text, context) {
    this.#agent.addMessage({ id: newId(), role: 'user', content: text })
    await this.run(context)
  }

  /** Add the result of a tool call. The agent goes on when all calls of its answer have results. */
  async addResult({ toolCallId, result, isError }, context) {
    const content = typeof result === 'string' ? result : JSON.stringify(result ?? null)
    this.#results.push({ id: newId(), role: 'tool', toolCallId, content, ...(isError && { error: content }) })
    this.#update()
    await this.#run // the call is in its answer
    if (!this.#results.length || hasOpenCalls([...this.#agent.messages, ...this.#results])) return
    this.#agent.addMessages(this.#results)
    this.#results = []
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
      this.#error = error.message
    }
    this.#update()
  }

  isOwnCall = (toolCallId) => this.#ownCalls.has(toolCallId)

  #open() {
    if (this.#subscription) return
    const update = () => this.#update()
    this.#subscription = this.#agent.subscribe({
      onRunInitialized: update,
      onEvent: update,
      onMessagesChanged: update,
      onRunFinalized: update,
      // The run of a snapshot has the id of the request.
      onRunStartedEvent: ({ event, input }) => event.runId !== input.runId && void (this.#error = undefined),
      onRunErrorEvent: ({ event }) => void (this.#error = event.message),
    })
    this.#agent.connectAgent().catch((error) => {
      this.#error = error.message
      update()
    })
  }

  #close() {
    this.#subscription?.unsubscribe()
    this.#subscription = undefined
    this.#agent.detachActiveRun()
  }

  /** Replace the snapshot. Later: after its subscribers, AG-UI's client changes the agent. */
  #update() {
    if (this.#isUpdateDue) return
    this.#isUpdateDue = true
    setTimeout(() => {
      this.#isUpdateDue = false
      this.#snapshot = this.#makeSnapshot()
      for (const listener of [...this.#listeners]) listener()
    }, 0)
  }

  #makeSnapshot() {
    const { messages, isRunning, pendingInterrupts } = this.#agent
    return { messages: [...messages, ...this.#results], isRunning, questions: [...pendingInterrupts], error: this.#error }
  }
}

/** Return true if a call after the last user's message has no result. */
function hasOpenCalls(messages) {
  const answers = messages.slice(messages.findLastIndex(({ role }) => role === 'user') + 1)
  const results = new Set(answers.map(({ toolCallId }) => toolCallId))
  return answers.some(({ toolCalls }) => toolCalls?.some(({ id }) => !results.has(id)))
}
