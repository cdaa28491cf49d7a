// @ts-nocheck: the packages of the peer dependencies are not among the tools of make lint-js

import { HttpAgent } from '@ag-ui/client'
import { Observable } from 'rxjs'

const MAX_DELAY = 5000 // in ms

/**
 * An agent of a hub for clients of AG-UI. `connectAgent` shows the session as it is, and then every run in it.
 *
 * Fields have no `#`: `clone` of AG-UI's client copies objects without their private fields.
 */
export class HubbubAgent extends HttpAgent {
  constructor({ live = true, ...config }) {
    super(config)
    this.live = live
    /** What connectAgent() was called with, as long as the connection goes on. */
    this.connection = undefined
    /** The query of the next stream after a run of this agent that asks a question. */
    this.cursor = undefined
  }

  clone() {
    return Object.assign(super.clone(), { live: this.live, connection: undefined, cursor: undefined })
  }

  connect(input) {
    return new Observable((observer) => {
      let stream
      const open = (query) => {
        let cursor
        const parameters = new URLSearchParams({ live: String(this.live), ...query })
        const agent = new HttpAgent({ url: `${this.url}/connect?${parameters}`, headers: this.headers, fetch: this.fetch })
        stream = agent.run(input).subscribe({
          next: (event) => {
            cursor = event.metadata?.hubbub ?? cursor
            observer.next(event)
          },
          // A session begins with its first message.
          error: (error) => (error.status === 404 ? observer.complete() : observer.error(error)),
          complete: () => (this.live && cursor ? open(cursor) : observer.complete()),
        })
      }
      open(this.cursor)
      return () => stream.unsubscribe()
    })
  }

  async connectAgent(parameters, subscriber) {
    await this.detachActiveRun()
    const connection = (this.connection = { parameters, subscriber })
    const watch = this.subscribe({
      // The run of a snapshot has the id of the request.
      onRunStartedEvent: ({ agent, event, input }) => void (agent.isRunning = event.runId !== input.runId),
      onRunFinishedEvent: (params) => this.endRun(params),
      onRunErrorEvent: (params) => this.endRun(params),
    })
    try {
      for (let delay = 100; ; delay = Math.min(2 * delay, MAX_DELAY)) {
        const { threadId } = this
        try {
          const result = await this.connectOnce(parameters, subscriber)
          if (!this.live || this.connection !== connection || threadId !== this.threadId) return result
        } catch (error) {
          if (!this.live || this.connection !== connection || (error.status >= 400 && error.status < 500)) throw error
        }
        await new Promise((resolve) => setTimeout(resolve, delay))
        if (this.connection !== connection) return { result: undefined, newMessages: [] }
      }
    } finally {
      watch.unsubscribe()
    }
  }

  async connectOnce(parameters, subscriber) {
    // AG-UI's client refuses to connect while a question is open. After a question of this agent, the stream goes on.
    const questions = this.pendingInterrupts
    if (!questions.length) this.cursor = undefined
    this.pendingInterrupts = []
    const connected = super.connectAgent(parameters, subscriber)
    this.isRunning = false // AG-UI's client says that an agent runs as long as it is connected
    if (this.cursor) this.pendingInterrupts = questions
    return await connected
  }

  async runAgent(parameters, subscriber) {
    const { connection, messages } = this
    await this.detachActiveRun()
    this.addMissing(messages)
    const watch = this.subscribe({ onRunFinishedEvent: ({ event }) => void (this.cursor = event.metadata?.hubbub) })
    try {
      return await super.runAgent(parameters, subscriber)
    } finally {
      watch.unsubscribe()
      if (connection && this.live) this.connectAgent(connection.parameters, connection.subscriber).catch(() => {})
    }
  }

  /** Add new messages again: an event that was being applied has replaced the list. */
  addMissing(messages) {
    const ids = new Set(this.messages.map(({ id }) => id))
    this.messages.push(...messages.filter(({ id }) => !ids.has(id)))
  }

  async detachActiveRun() {
    this.connection = undefined
    await super.detachActiveRun()
  }

  /** Stop the answer at once, also one that another client has started. */
  abortRun() {
    super.abortRun()
    const url = this.url.replace(/\/agents\/[^/]+\/agui\/?$/, `/sessions/${encodeURIComponent(this.threadId)}/cancel`)
    const headers = { ...this.headers, 'Content-Type': 'application/json' }
    this.fetch(url, { method: 'POST', headers, body: '{"queued":false}' }).catch(() => {})
  }

  endRun({ agent, ...params }) {
    agent.isRunning = false
    // Later: after its subscribers, AG-UI's client changes the open questions.
    setTimeout(() => {
      for (const subscriber of this.subscribers) subscriber.onRunFinalized?.({ agent, ...params })
    }, 0)
  }
}
