/** @import { Author, Event, InterruptEvent, Message, Notice } from './client.js' */
/** @import { ChatMessage, ToolCall } from './react.js' */

/** @typedef {Extract<Event, { runId?: string }>} RunEvent */

/**
 * The messages of a session as a page shows them, made from its history and its events.
 *
 * `messages` and `questions` are replaced at each change, and never changed in place: React compares them.
 */
export class Transcript {
  /** @type {ChatMessage[]} */
  messages = []
  /** @type {InterruptEvent[]} */
  questions = []
  /** @type {Author[]} */
  members = []
  /** @type {Set<string>} */
  #runs = new Set() // the runs that are active

  get isRunning() {
    return this.#runs.size > 0
  }

  /**
   * Begin anew with finished messages.
   * @param {Message[]} history
   */
  begin(history) {
    const pending = this.messages.filter(({ isPending }) => isPending)
    this.messages = [...history.map(fromHistory), ...pending]
    this.questions = []
    this.#runs.clear()
  }

  /**
   * Show a message before the hub has accepted it.
   * @param {string} clientMsgId
   * @param {string} content
   * @param {Pick<ChatMessage, 'parts' | 'metadata'>} fields
   */
  addPending(clientMsgId, content, fields) {
    const message = { messageId: clientMsgId, role: /** @type {const} */ ('user'), content, ...fields }
    this.messages = [...this.messages, { ...message, isPending: true, isStreaming: false, toolCalls: [] }]
  }

  /** @param {string} clientMsgId */
  removePending(clientMsgId) {
    this.#remove((message) => message.isPending === true && message.messageId === clientMsgId)
  }

  /** @param {Event | Notice} event */
  apply(event) {
    switch (event.type) {
      case 'user_message': return this.#applyUserMessage(event)
      case 'run_started':
        this.#runs.add(event.runId)
        return this.#put(newAnswer(event, event.messageId))
      case 'stream': return this.#change(event, event.messageId, ({ content }) => ({ content: content + event.content }))
      case 'message': return this.#change(event, event.messageId, () => pick(event, 'content', 'parts', 'stopReason', 'error'))
      case 'reasoning': return this.#changeRun(event, ({ reasoning = '' }) => ({ reasoning: reasoning + event.delta }))
      case 'tool_call_start': return this.#changeRun(event, ({ toolCalls }) => ({ toolCalls: [...toolCalls, newToolCall(event)] }))
      case 'tool_call_args': return this.#changeTool(event, (call) => ({ arguments: call.arguments + event.delta }))
      case 'tool_call_result': return this.#changeTool(event, () => ({ result: event.content, isError: event.isError }))
      case 'run_error': return this.#changeRun(event, () => ({ error: { code: event.code, message: event.message } }))
      case 'run_finished': return this.#finishRun(event)
      case 'message_removed': return this.#remove(({ messageId }) => event.messageIds.includes(messageId))
      case 'interrupt':
        this.questions = [...this.questions.filter(({ id }) => id !== event.id), event]
        return
      case 'interrupt_resolved':
        this.questions = this.questions.filter(({ id }) => id !== event.interruptId)
        return
      case 'presence': this.members = event.members ?? []
    }
  }

  /** @param {Extract<Event, { type: 'user_message' }>} event */
  #applyUserMessage(event) {
    if (event.clientMsgId) this.removePending(event.clientMsgId)
    const fields = pick(event, 'messageId', 'content', 'author', 'parts', 'metadata', 'ts')
    this.#put({ role: 'user', isStreaming: false, toolCalls: [], ...fields })
  }

  /**
   * The end of a run: its messages are complete. An empty message of a run that said nothing goes.
   * @param {Extract<Event, { type: 'run_finished' }>} event
   */
  #finishRun({ runId, stopReason, usage }) {
    this.#runs.delete(runId)
    this.questions = this.questions.filter((question) => question.runId !== runId)
    const last = this.#lastOf(runId)?.messageId
    const reason = stopReason === 'end_turn' ? {} : { stopReason }
    this.messages = this.messages.flatMap((message) => {
      if (message.runId !== runId) return [message]
      const isLast = message.messageId === last
      const finished = { ...message, isStreaming: false, ...(isLast ? { ...reason, usage } : {}) }
      return isEmpty(finished) ? [] : [finished]
    })
  }

  /** @param {string} runId */
  #lastOf(runId) {
    return this.messages.findLast((message) => message.runId === runId)
  }

  /**
   * Add a message before the pending ones, or replace the one with its id: the history may have it already.
   * @param {ChatMessage} message
   */
  #put(message) {
    const isKnown = this.messages.some(({ messageId }) => messageId === message.messageId)
    if (isKnown) this.messages = this.messages.map((other) => (other.messageId === message.messageId ? message : other))
    else this.messages = [...this.messages.filter(({ isPending }) => !isPending), message, ...this.messages.filter(({ isPending }) => isPending)]
  }

  /**
   * Change a message of an answer; make it if it is new.
   * @param {RunEvent} event
   * @param {string} messageId
   * @param {(message: ChatMessage) => Partial<ChatMessage>} change
   */
  #change(event, messageId, change) {
    const message = this.messages.find((other) => other.messageId === messageId) ?? newAnswer(event, messageId)
    this.#put({ ...message, ...change(message) })
  }

  /**
   * Change the last message of a run.
   * @param {RunEvent} event
   * @param {(message: ChatMessage) => Partial<ChatMessage>} change
   */
  #changeRun(event, change) {
    const message = this.#lastOf(event.runId ?? '')
    if (message) this.#change(event, message.messageId, change)
  }

  /**
   * Change a tool call of a run.
   * @param {RunEvent & { toolCallId: string }} event
   * @param {(call: ToolCall) => Partial<ToolCall>} change
   */
  #changeTool({ runId, toolCallId }, change) {
    this.messages = this.messages.map((message) => {
      if (message.runId !== runId || !message.toolCalls.some(({ id }) => id === toolCallId)) return message
      const toolCalls = message.toolCalls.map((call) => (call.id === toolCallId ? { ...call, ...change(call) } : call))
      return { ...message, toolCalls }
    })
  }

  /** @param {(message: ChatMessage) => boolean} test */
  #remove(test) {
    this.messages = this.messages.filter((message) => !test(message))
  }
}

/**
 * @param {RunEvent} event
 * @param {string} messageId
 * @returns {ChatMessage}
 */
const newAnswer = ({ agentId, runId, ts }, messageId) => ({
  ...{ messageId, role: 'assistant', content: '', agentId, runId, ts, isStreaming: runId !== undefined, toolCalls: [] },
})

/** @param {ChatMessage} message */
const isEmpty = ({ content, parts, toolCalls, reasoning, stopReason, error }) =>
  !(content || parts || toolCalls.length || reasoning || stopReason || error)

/**
 * @param {{ toolCallId: string, toolCallName: string }} event
 * @returns {ToolCall}
 */
const newToolCall = ({ toolCallId, toolCallName }) => ({ id: toolCallId, name: toolCallName, arguments: '' })

/**
 * @param {Message} message
 * @returns {ChatMessage}
 */
function fromHistory(message) {
  /** @type {ToolCall[]} */
  const toolCalls = []
  for (const part of message.parts ?? []) {
    if (part.type === 'tool_call') toolCalls.push({ ...newToolCall(part), arguments: part.arguments })
    else if (part.type === 'tool_result' && message.role === 'assistant') {
      Object.assign(toolCalls.find(({ id }) => id === part.toolCallId) ?? {}, { result: part.content, isError: part.isError })
    }
  }
  return { ...message, isStreaming: false, toolCalls }
}

/**
 * Return some fields of an object, without those that are missing.
 * @template {object} T
 * @template {keyof T} K
 * @param {T} object
 * @param {K[]} names
 * @returns {Pick<T, K>}
 */
const pick = (object, ...names) =>
  /** @type {Pick<T, K>} */ (Object.fromEntries(names.flatMap((name) => (object[name] === undefined ? [] : [[name, object[name]]]))))
