// @ts-nocheck: the packages of the peer dependencies are not among the tools of make lint-js

import { HttpAgent } from '@ag-ui/client'
import { Observable } from 'rxjs'
import { postCommand } from './agent_commands.js'

const MIN_DELAY = 100 // in ms
const MAX_DELAY = 5000

/**
 * An agent of a hub for clients of AG-UI. `connectAgent` shows the session as it is, and then every run in it.
 *
 * Fields have no `#`: `clone` of AG-UI's client copies objects without their private fields.
 */
export class HubbubAgent extends HttpAgent {
  constructor({ live = true, ...config }) {
    super(config)
    this.live = live
    /** What connectAgent() was called with. After a run on its thread, the agent connects again. */
    this.connection = undefined
    /** The promise of the last call of begin(): its run has a stream, or is over. */
    this.turn = undefined
    /** The promise of the run or the connection that is going on. */
    this.activity = undefined
    this.markStarted = undefined
    /** Resolves `activeRunCompletionPromise` of AG-UI's client, while a connection shows a run. */
    this.markEnded = undefined
    /** The delay in ms before the agent connects again: it grows until the hub accepts a connection. */
    this.delay = MIN_DELAY
    /** The query of the next stream after a run of this agent that asks a question. */
    this.cursor = undefined
  }

  clone() {
    return Object.assign(super.clone(), { live: this.live, connection: undefined, cursor: undefined })
  }

  run(input) {
    this.markStarted?.()
    return super.run(input)
  }

  connect(input) {
    this.markStarted?.()
    return new Observable((observer) => {
      let stream
      let agent
      const fetch = async (...request) => {
        const response = await this.fetch(...request)
        if (response.ok) this.delay = MIN_DELAY
        return response
      }
      const open = (query) => {
        let cursor
        const parameters = new URLSearchParams({ live: String(this.live), ...query })
        agent = new HttpAgent({ url: `${this.url}/connect?${parameters}`, headers: this.headers, fetch })
        stream = agent.run(input).subscribe({
          next: (event) => {
            cursor = event.metadata?.hubbub ?? cursor
            observer.next(event)
          },
          // A session begins with its first message.
          error: (error) => (error.status === 404 ? observer.complete() : observer.error(error)),
          // Without a cursor, messages were removed: connectOnce() asks for all messages.
          complete: () => {
            this.cursor = undefined
            if (this.live && cursor) open(cursor)
            else observer.complete()
          },
        })
      }
      open(this.cursor)
      return () => {
        stream.unsubscribe()
        agent.abortRun() // the request may have no answer yet: unsubscribe() does not end it
      }
    })
  }

  /** See agui.d.ts. */
  async connectAgent(parameters, subscriber) {
    this.connection = { parameters, subscriber, threadId: this.threadId }
    const ids = new Set(this.messages.map(({ id }) => id))
    return await new Promise((resolve, reject) => {
      const markIdle = (result) => resolve({ result, newMessages: this.messages.filter(({ id }) => !ids.has(id)) })
      this.stayConnected(parameters, subscriber, markIdle).then(resolve, reject)
    })
  }

  /** Connect; with `live`, connect again after each end of the connection. Call *markIdle* when no run is going on. */
  async stayConnected(parameters, subscriber, markIdle) {
    for (;;) {
      const { threadId } = this
      const connecting = this.begin(() => this.connectOnce(parameters, subscriber, markIdle))
      const { turn } = this
      const isOver = () => !this.live || this.turn !== turn || this.threadId !== threadId
      try {
        const result = await connecting
        if (isOver()) return result
        markIdle()
      } catch (error) {
        if (isOver() || (error.status >= 400 && error.status < 500)) throw error
      }
      const { delay } = this
      this.delay = Math.min(2 * delay, MAX_DELAY)
      await new Promise((resolve) => setTimeout(resolve, delay))
      if (isOver()) return { result: undefined, newMessages: [] }
    }
  }

  async connectOnce(parameters, subscriber, markIdle) {
    // AG-UI's client refuses to connect while a question is open. After a question of this agent, the stream goes on.
    const questions = this.pendingInterrupts
    if (!questions.length) this.cursor = undefined
    this.pendingInterrupts = []
    const watch = this.subscribe({
      onRunStartedEvent: ({ event, input }) => this.startRun(event.runId !== input.runId),
      onRunFinishedEvent: (params) => this.endRun(params, markIdle),
      onRunErrorEvent: (params) => this.endRun(params, markIdle),
      onMessagesSnapshotEvent: ({ event, messages }) => ({ messages: dropReasoning(messages, event.messages) }),
    })
    try {
      const connected = super.connectAgent(parameters, subscriber)
      this.isRunning = false // AG-UI's client says that an agent runs as long as it is connected
      if (this.cursor) {
        this.pendingInterrupts = questions
        markIdle()
      }
      return await connected
    } finally {
      watch.unsubscribe()
      this.markEnded?.()
    }
  }

  async runAgent(parameters, subscriber) {
    const running = this.begin(() => this.runOnce(parameters, subscriber))
    const { turn } = this
    try {
      return await running
    } finally {
      const { connection } = this
      // CopilotKit calls detachActiveRun() before each run, so that this call does not end the connection for good.
      if (this.live && this.turn === turn && connection?.threadId === this.threadId) {
        this.connectAgent(connection.parameters, connection.subscriber).catch(() => {})
      }
    }
  }

  async runOnce(parameters, subscriber) {
    const watch = this.subscribe({ onRunFinishedEvent: ({ event }) => void (this.cursor = event.metadata?.hubbub) })
    try {
      return await super.runAgent(parameters, subscriber)
    } finally {
      watch.unsubscribe()
    }
  }

  /** Add new messages again: an event that was being applied has replaced the list. */
  addMissing(messages) {
    const ids = new Set(this.messages.map(({ id }) => id))
    this.messages.push(...messages.filter(({ id }) => !ids.has(id)))
  }

  async detachActiveRun() {
    await this.begin(() => {})
  }

  /**
   * Detach what is going on, then call *start* for a run or a connection, and return its result.
   *
   * The calls take turns, because AG-UI's client cannot detach a run before its stream has begun. After the last event
   * of a run, this client sets `isRunning` to false, and only then its promise resolves: the next run waits for that.
   */
  async begin(start) {
    const { turn, messages, threadId } = this
    let markStarted
    this.turn = new Promise((resolve) => (markStarted = resolve))
    await turn
    await super.detachActiveRun()
    await this.activity
    if (this.threadId === threadId) this.addMissing(messages)
    this.markStarted = markStarted
    const result = (async () => start())()
    this.activity = result.catch(() => {}).finally(markStarted)
    return await result
  }

  /** Stop the answer at once, also one that another client has started. */
  abortRun() {
    super.abortRun()
    postCommand(this, 'cancel', { queued: false }).catch(() => {})
  }

  /** Record that a connection begins a run. The run of a snapshot is no answer: it has the id of the request. */
  startRun(isAnswer) {
    this.isRunning = isAnswer
    // CopilotKit waits for this promise before it sends. AG-UI's client resolves its own at the end of the connection.
    if (isAnswer) this.activeRunCompletionPromise = new Promise((resolve) => (this.markEnded = resolve))
  }

  endRun({ agent, ...params }, markIdle) {
    const { event } = params
    agent.isRunning = false
    this.markEnded?.()
    // Later: after its subscribers, AG-UI's client changes the open questions.
    setTimeout(() => {
      for (const subscriber of this.subscribers) subscriber.onRunFinalized?.({ agent, ...params })
      if (event.runId !== params.input.runId || event.result?.isIdle) markIdle(event.result)
    }, 0)
  }
}

/** Drop the reasoning of removed answers: AG-UI's client keeps all reasoning if a snapshot has none. */
function dropReasoning(messages, snapshot) {
  const ids = new Set(snapshot.map(({ id }) => id))
  const findAnswer = (index) => messages.slice(index).find(({ role }) => role !== 'reasoning')
  return messages.filter(({ role }, index) => role !== 'reasoning' || ids.has(findAnswer(index)?.id))
}
