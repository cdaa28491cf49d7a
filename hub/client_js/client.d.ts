/** The types of client.js, the client of a Hubbub hub. docs/clients.md shows how to use it. */

export interface ConnectOptions {
  /** The class of the sockets; needed where there is none, as in Node.js 20: that of the package `ws`. */
  WebSocket?: new (url: string, protocol: string) => any
}

/** Connect to a hub, and stay connected until `close()`, or a close code that forbids to come again.
 *
 * The address is in a browser by default that of the page's own hub. Throws where it is none.
 */
export function connect(url?: string | URL, options?: ConnectOptions): Hub

/** What the hub refused, or what the connection could not do.
 *
 * `code` is one of docs/protocol.md, an agent's own, a `stopReason`, or one of the client's: `disconnected`, `closed`,
 * `too_large`, `slow_reader`, `reset`.
 */
export class HubError extends Error {
  readonly code: string
  /** Whether trying again may help. */
  readonly retryable: boolean
  readonly retryAfterMs?: number
  readonly sessionId?: string
  readonly agentId?: string
  readonly runId?: string
  readonly clientMsgId?: string
  /** Of an answer that ended early: what came of it. */
  readonly text?: string
  constructor(code: string, message: string, about?: Partial<HubError>)
}

export interface Agent {
  agentId: string
  description: string
  status: 'ok' | 'broken'
  error?: string
}

export interface Author {
  id: string
  name: string
}

export interface Limits {
  frameBytes: number
  subscriptions: number
  queuedRuns: number
  historyMessages: number
  listSize: number
}

export type State = 'connecting' | 'live' | 'waiting' | 'closed'
export type StopReason = 'end_turn' | 'max_tokens' | 'refused' | 'tool_calls' | 'cancelled' | 'timeout' | 'error' | 'aborted'

/** A finished message, as `history` and `reset` have it. */
export interface Message {
  messageId: string
  role: 'user' | 'assistant'
  content: string
  agentId?: string
  runId?: string
  author?: Author
  ts?: number
  /** On the last message of an answer: how the answer ended, if not with `end_turn`. */
  stopReason?: StopReason
  error?: Failure
}

/** Why an answer failed. */
export interface Failure {
  code: string
  message: string
}

/** An answer that is going on, or waits. */
export interface Run {
  runId: string
  agentId: string
  messageId: string
  userMessageId: string
}

interface Numbered {
  sessionId: string
  epoch: string
  seq: number
  ts: number
}

interface OfRun extends Numbered {
  agentId: string
  runId: string
}

/** What happened; numbered in its session. */
export type Event =
  | (Numbered & { type: 'user_message'; messageId: string; author: Author; content: string; clientMsgId?: string })
  | (OfRun & { type: 'run_started'; messageId: string; attempt: number })
  | (OfRun & { type: 'stream'; messageId: string; content: string; offset: number })
  | (OfRun & { type: 'message'; messageId: string; content: string; stopReason?: StopReason; error?: Failure })
  | (OfRun & { type: 'run_error'; code: string; message: string; retryable?: boolean; retryAfterMs?: number })
  | (OfRun & { type: 'run_finished'; messageId: string; stopReason: StopReason; usage?: Usage })
  | (OfRun & { type: 'message_removed'; messageIds: string[]; reason: string })
  | (OfRun & { type: 'reasoning'; messageId: string; delta: string })
  | (OfRun & { type: 'tool_call_start'; toolCallId: string; toolCallName: string })
  | (OfRun & { type: 'tool_call_args'; toolCallId: string; delta: string })
  | (OfRun & { type: 'tool_call_end'; toolCallId: string })
  | (OfRun & { type: 'tool_call_result'; toolCallId: string; content: string; isError?: boolean })
  | (OfRun & { type: 'progress'; progress: number; message?: string })
  | (OfRun & { type: 'step_started' | 'step_finished'; stepName: string })
  | (OfRun & { type: 'custom'; name: string; value: unknown })
  | (OfRun & { type: 'state_snapshot'; snapshot: unknown })
  | (OfRun & { type: 'state_delta'; delta: unknown })

export interface Usage {
  inputTokens?: number
  outputTokens?: number
}

/** What the hub says beside the log; not numbered. */
export type Notice =
  | { type: 'state'; sessionId: string; state: 'running' | 'queued' | 'idle'; active: Run[]; queue: Run[] }
  | { type: 'presence'; sessionId: string; count: number; members?: Author[] }
  | { type: 'typing'; sessionId: string; author: Author }
  | { type: 'error'; code: string; message: string; sessionId?: string; retryAfterMs?: number }

/** Forget what was shown of the session, show these messages, and go on from what follows. */
export interface Reset {
  type: 'reset'
  sessionId: string
  reason: 'epoch_changed' | 'past_head' | 'too_old'
  /** Missing while the session does not exist. */
  epoch?: string
  messages: Message[]
}

/** After a `reset` a chat has what the session kept of its answer: whole messages. */
export interface KeptMessage extends Message {
  type: 'message'
  sessionId: string
  epoch: string
}

export interface Welcome {
  type: 'welcome'
  protocol: string
  hub: { name: string; version: string }
  connectionId: string
  principal: Author
  agents: Agent[]
  limits: Limits
  heartbeatMs: number
}

export interface Subscribed {
  type: 'subscribed'
  sessionId: string
  /** Missing while the session does not exist. */
  epoch?: string
  seq: number
  agents: string[]
  members?: Author[]
  active: Run[]
  history?: Message[]
}

export interface Accepted {
  type: 'accepted'
  sessionId: string
  messageId: string
  runId: string
  seq: number
  status: 'started' | 'queued' | 'duplicate'
  position: number
  clientMsgId: string
}

/** Takes the listener away again. */
export type Off = () => void

export class Hub {
  private constructor()
  readonly state: State
  /** While `waiting`: how long from the loss of the connection to the next try. */
  readonly retryInMs?: number
  /** Why the last connection ended. */
  readonly closeCode?: number
  readonly closeReason?: string
  /** Resolves at the first welcome; rejects where there comes none. */
  readonly ready: Promise<Hub>
  /** Known from the first welcome on. */
  readonly agents: Agent[]
  readonly principal?: Author
  readonly limits?: Limits
  on(kind: 'state', listener: (state: State) => void): Off
  on(kind: 'welcome', listener: (welcome: Welcome) => void): Off
  /** What concerns no session that is open here, such as `draining`. */
  on(kind: 'notice', listener: (notice: any) => void): Off
  /** Hear a session, over every reconnect, until it is closed. The same id gives the same object. */
  session(sessionId: string, options?: SessionOptions): Session
  /** Hear an agent's answers in all sessions: those that start while there is a connection. */
  subscribe(group: { agentId: string }): Group
  /** End everything: sessions and groups, and what waits is rejected with the code `closed`. */
  close(): void
}

export interface SessionOptions {
  /** Who answers chats that name nobody. */
  agent?: string
  /** With `epoch`: the place to resume from, such as a page kept it. */
  afterSeq?: number
  epoch?: string
  /** Without a place: so many of the last finished messages, in `subscribed`. */
  history?: number
}

export interface ChatOptions {
  /** Makes the message run once, however often it is sent; made where there is none. */
  clientMsgId?: string
  agent?: string
  ifBusy?: 'enqueue' | 'reject' | 'replace' | 'parallel'
}

export class Session {
  private constructor()
  readonly sessionId: string
  /** Where the listeners stand: hand both back to resume in another page. */
  readonly seq?: number
  readonly epoch?: string
  /** Every event, in order, once; and every notice. */
  on(kind: 'event', listener: (event: Event | Notice) => void): Off
  on(kind: 'reset', listener: (reset: Reset) => void): Off
  on(kind: 'subscribed', listener: (subscribed: Subscribed) => void): Off
  /** The session cannot be heard; unless `retryable`, it is closed. */
  on(kind: 'error', listener: (error: HubError) => void): Off
  /** Say something. It is sent now, or when there is a connection, and again until the hub has accepted it. */
  chat(message: string, options?: ChatOptions): Chat
  /** Say something; resolves with the whole answer, rejects where that failed or ended early. */
  ask(message: string, options?: ChatOptions): Promise<string>
  /** Stop an answer, or all of them. */
  cancel(runId?: string): Promise<any>
  /** Tell the others that someone is writing. */
  typing(): Promise<void>
  /** Send any other command; rejects with `disconnected` where there is no connection, or it is lost meanwhile. */
  send(command: { type: string; [field: string]: unknown }): Promise<any>
  /** Hear it no more; its chats are rejected with the code `closed`. */
  close(): void
}

/** One message and the events of its answer, to the end. One reader; who leaves the loop does not stop the answer. */
export class Chat implements AsyncIterable<Event | Reset | KeptMessage> {
  private constructor()
  readonly clientMsgId: string
  /** Known when the message is accepted. */
  readonly runId?: string
  /** The message is on disk, and will be answered. */
  readonly accepted: Promise<Accepted>
  [Symbol.asyncIterator](): AsyncIterator<Event | Reset | KeptMessage>
  /** Read the answer to its end, instead of the loop. */
  text(): Promise<string>
}

export class Group implements AsyncIterable<Event> {
  private constructor()
  readonly agentId: string
  on(kind: 'event', listener: (event: Event) => void): Off
  on(kind: 'error', listener: (error: HubError) => void): Off
  [Symbol.asyncIterator](): AsyncIterator<Event>
  close(): void
}
