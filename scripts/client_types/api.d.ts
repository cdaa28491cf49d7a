/** The types of client.js, the client of a Hubbub hub. docs/clients.md shows how to use it. */

export interface ConnectOptions {
  /** The WebSocket class. Node.js 20 has none: pass the one of the package `ws`. */
  WebSocket?: new (url: string, protocol: string) => any
  /**
   * A key of the hub, or a JWT. A function is asked for each connection, because its tokens may expire.
   *
   * The hub's own pages need none: their cookie signs them in.
   */
  token?: Token
}

export type Token = string | (() => string | Promise<string>)

/**
 * Connect to a hub, and reconnect until `close()` or a final close code.
 *
 * Without a `url`, a page connects to the hub that served it. Throws if `url` is not the address of a WebSocket.
 */
export function connect(url?: string | URL, options?: ConnectOptions): Hub

/**
 * An error of the hub or of the connection.
 *
 * `code` is an error code of docs/protocol.md, an error code of the agent, a `stopReason`, or one of the client's own:
 * `disconnected`, `closed`, `too_large`, `slow_reader`, `reset`, `bad_id`, `busy`, `http_502` and other statuses.
 */
export class HubError extends Error {
  readonly code: string
  /** Trying again later may help. */
  readonly retryable: boolean
  readonly retryAfterMs?: number
  readonly sessionId?: string
  readonly agentId?: string
  readonly runId?: string
  readonly clientMsgId?: string
  /** The text of an answer that ended early. */
  readonly text?: string
  constructor(code: string, message: string, details?: HubErrorDetails)
}

export interface HubErrorDetails {
  retryable?: boolean
  retryAfterMs?: number
  sessionId?: string
  agentId?: string
  runId?: string
  clientMsgId?: string
}

export interface Limits {
  frameBytes: number
  subscriptions: number
  queuedRuns: number
  historyMessages: number
  listSize: number
}

/** What a person or program may do in a session: viewers read, members also write, owners also invite. */
export type SessionRole = 'owner' | 'member' | 'viewer'

export type State = 'connecting' | 'live' | 'waiting' | 'closed'

/** An answer that is active or queued. */
export interface Run {
  runId: string
  agentId: string
  messageId: string
  userMessageId: string
}

/** A question of an agent that nobody has answered yet; the event `interrupt` has its text. */
export interface OpenQuestion {
  id: string
  runId: string
}

interface SessionEvent {
  sessionId: string
  epoch: string
  seq: number
  ts: number
}

interface RunEvent extends SessionEvent {
  agentId: string
  runId: string
}

/** A complete message of an answer: after a `reset`, a chat gets these instead of the events. */
export interface KeptMessage extends Message {
  type: 'message'
  sessionId: string
  epoch: string
}

// --- wire ---

/** Remove the listener. */
export type Off = () => void

export interface FetchOptions {
  method?: string
  headers?: any
  body?: any
  signal?: any
  [option: string]: any
}

/** The connection to a hub, with its sessions and groups; made by `connect()`. */
export interface Hub {
  readonly state: State
  /** While `waiting`: the time from the loss of the connection to the next try. */
  readonly retryInMs?: number
  /** The close code and the reason of the last connection that ended. */
  readonly closeCode?: number
  readonly closeReason?: string
  /** Resolves at the first welcome; rejects with `closed` if the client is closed before. */
  readonly ready: Promise<Hub>
  /** Empty before the first welcome. */
  readonly agents: Agent[]
  readonly principal?: Author
  readonly limits?: Limits
  on(kind: 'state', listener: (state: State) => void): Off
  on(kind: 'welcome', listener: (welcome: Welcome) => void): Off
  /** A notice that belongs to no session opened here, such as `draining`. */
  on(kind: 'notice', listener: (notice: Notice) => void): Off
  /**
   * Open a session, and stay subscribed over reconnects until it is closed.
   *
   * Each call returns an object of its own, with its own agent, listeners and chats. The objects of one id share one
   * subscription.
   */
  session(sessionId: string, options?: SessionOptions): Session
  /** Subscribe to an agent's answers in all sessions; only to answers that start while the client is connected. */
  subscribe(group: { agentId: string }): Group
  /**
   * Call a route of docs/api.md, such as `/sessions`, with this client's token. The options are those of the function
   * `fetch`.
   */
  fetch(path: string, options?: FetchOptions): Promise<any>
  /** Close the connection, all sessions and all groups; pending promises are rejected with `closed`. */
  close(): void
}

export interface SessionOptions {
  /** The agent of chats that name none. */
  agent?: string
  /** Resume after this event: pass the `seq` and `epoch` that an earlier page stored. */
  afterSeq?: number
  epoch?: string
  /** Without `afterSeq`: the number of finished messages that `subscribed` contains. */
  history?: number
}

export interface ChatOptions {
  /** The idempotency key: the hub answers a message once, however often it is sent. Random by default. */
  clientMsgId?: string
  agent?: string
  ifBusy?: IfBusy
  /** Images, documents and other parts beside the text, or the results of tool calls. */
  parts?: Exclude<Part, ToolCallPart>[]
  /** Any JSON object: it comes back in the `user_message` and in the history, and the agent reads it. */
  metadata?: Record<string, unknown>
  /** Files to upload first; the message names them in further parts. */
  files?: (FileContent | StoredFile)[]
  /** Called while the files are uploaded, with the bytes of all files. */
  onProgress?: (progress: UploadProgress) => void
  /** Aborts the uploads, and the chat with them, as long as the message was not sent. */
  signal?: AbortSignal
}

export interface AskOptions extends ChatOptions {
  /**
   * Called with each question of the agent; the value that it returns, or promises, is the reply. The first reply
   * counts: if another client has replied already, the value is dropped. Without this function, `ask` waits until
   * another client replies. If the function throws, `ask` rejects with its error, and the question stays open.
   */
  onQuestion?: (question: InterruptEvent) => unknown
}

export type FileContent = Blob | ArrayBuffer | ArrayBufferView | string

export interface UploadProgress {
  loaded: number
  total: number
}

export interface UploadOptions {
  /** By default the name of a `File`. */
  name?: string
  /** The media type. By default the type of a `Blob`. */
  type?: string
  onProgress?: (progress: UploadProgress) => void
  /** Aborts the upload: it rejects with the reason of the signal. The hub keeps no incomplete file. */
  signal?: AbortSignal
}

export interface Session {
  readonly sessionId: string
  /** The position of the listeners: store both, and pass them as options to resume in another page. */
  readonly seq?: number
  readonly epoch?: string
  /** Each event once and in order; and each notice. */
  on(kind: 'event', listener: (event: Event | Notice) => void): Off
  on(kind: 'reset', listener: (reset: Reset) => void): Off
  /** The client has subscribed: once for each object and connection. Only the first one has `history`. */
  on(kind: 'subscribed', listener: (subscribed: Subscribed) => void): Off
  /**
   * The hub refused the subscription. If the error is `retryable`, the client tries again; else the session is closed.
   *
   * After `unknown_session` it stays open: a chat may create the session, and then its events come.
   */
  on(kind: 'error', listener: (error: HubError) => void): Off
  /** Send a message: now, or at the next connection, and again until the hub accepts it. */
  chat(message: string, options?: ChatOptions): Chat
  /** Send a message; resolves with the complete answer, rejects if the answer failed or ended early. */
  ask(message: string, options?: AskOptions): Promise<string>
  /** Stop one answer, or all answers of the session. */
  cancel(runId?: string): Promise<Cancelling>
  /** Answer a question of an agent: the `id` of an `interrupt`, and any JSON. `cancelled` declines the question. */
  resume(interruptId: string, payload?: unknown, status?: ReplyStatus): Promise<void>
  /** Show the other people in the session that this person is writing. */
  typing(): Promise<void>
  /** Send any other command; rejects with `disconnected` if there is no connection, or if it is lost before the answer. */
  send(command: { type: string; [field: string]: unknown }): Promise<any>
  /** Upload a file to the session. The upload makes the session if it does not exist. */
  upload(data: FileContent, options?: UploadOptions): Promise<StoredFile>
  /** The files of the session, in the order of their uploads. */
  listFiles(): Promise<StoredFile[]>
  /** The bytes of a file. */
  readFile(fileId: string): Promise<Blob>
  /** Delete a file. Messages that name it stay. */
  deleteFile(fileId: string): Promise<void>
  /** Close this object: its chats are rejected with `closed`. The last object of a session unsubscribes. */
  close(): void
}

/**
 * One message and the events of its answer, to the end.
 *
 * It has one reader. Leaving the loop does not stop the answer: `session.cancel(chat.runId)` does.
 */
export interface Chat extends AsyncIterable<Event | Reset | KeptMessage> {
  readonly clientMsgId: string
  /** Set when the hub accepts the message. */
  readonly runId?: string
  /** Resolves when the message is on the hub's disk. */
  readonly accepted: Promise<Accepted>
  [Symbol.asyncIterator](): AsyncIterator<Event | Reset | KeptMessage>
  /** Read the answer to its end; instead of the loop. */
  text(): Promise<string>
}

/** The answers of one agent in all sessions. */
export interface Group extends AsyncIterable<Event> {
  readonly agentId: string
  on(kind: 'event', listener: (event: Event) => void): Off
  on(kind: 'error', listener: (error: HubError) => void): Off
  [Symbol.asyncIterator](): AsyncIterator<Event>
  close(): void
}
