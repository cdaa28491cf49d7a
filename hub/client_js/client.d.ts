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

// --- scripts/client_types/write.py has written these types, from hub/messages ---

export type StopReason = 'end_turn' | 'max_tokens' | 'refused' | 'tool_calls' | 'cancelled' | 'error' | 'timeout' | 'aborted'

export type IfBusy = 'enqueue' | 'reject' | 'replace' | 'rollback' | 'parallel'

export type ReplyStatus = 'resolved' | 'cancelled'

export type RemovalReason = 'restarted' | 'rollback' | 'edited'

/** A principal as other clients see it, such as the author of a message: its id, and a name to display. */
export interface Author {
  id: string
  name: string
}

/** The token counts of a model for one answer; an unknown count is missing. */
export interface Usage {
  inputTokens?: number
  outputTokens?: number
}

/** The error of a failed run. */
export interface Failure {
  code: string
  message: string
}

/**
 * An agent of the hub. `error` says why the agent is broken; it is missing if the status is `ok`.
 *
 * `tools` is true if the agent takes tools of clients; it is missing if the agent takes none.
 */
export interface Agent {
  agentId: string
  description: string
  status: 'ok' | 'broken'
  error?: string
  tools?: boolean
}

/** A stored file. `GET /files/{fileId}` returns its bytes. A list of files also has the time of the upload (ms). */
export interface StoredFile {
  fileId: string
  sessionId: string
  name: string
  type: string
  size: number
  ts?: number
}

/** The bytes themselves, in base64. */
export interface DataSource {
  type: 'data'
  value: string
  mimeType: string
}

/** The URL of the bytes. */
export interface UrlSource {
  type: 'url'
  value: string
  mimeType?: string
}

/** The id that a provider gave to an uploaded file. The provider `hubbub` is the hub, any other a model provider. */
export interface FileSource {
  type: 'file'
  value: string
  provider?: string
  mimeType?: string
}

/** A piece of text. */
export interface TextPart {
  type: 'text'
  text: string
  id?: string
  metadata?: unknown
}

/** An image. */
export interface ImagePart {
  type: 'image'
  source: DataSource | UrlSource | FileSource
  id?: string
  metadata?: unknown
}

/** A sound recording. */
export interface AudioPart {
  type: 'audio'
  source: DataSource | UrlSource | FileSource
  id?: string
  metadata?: unknown
}

/** A video. */
export interface VideoPart {
  type: 'video'
  source: DataSource | UrlSource | FileSource
  id?: string
  metadata?: unknown
}

/** A document, such as a PDF. */
export interface DocumentPart {
  type: 'document'
  source: DataSource | UrlSource | FileSource
  id?: string
  metadata?: unknown
}

/** A file in the form of AG-UI before 1.0: an id, a URL, or the bytes in base64. */
export interface BinaryPart {
  type: 'binary'
  mimeType: string
  id?: string
  url?: string
  data?: string
  filename?: string
}

/** A tool call in an agent's message; only the hub makes this part. `arguments` is the JSON that the agent wrote. */
export interface ToolCallPart {
  type: 'tool_call'
  toolCallId: string
  toolCallName: string
  arguments: string
}

/** The result of a tool call. A client sends it for a call of its own tools. */
export interface ToolResultPart {
  type: 'tool_result'
  toolCallId: string
  content: string
  isError?: boolean
}

/** A piece of a message besides its text. */
export type Part = TextPart | ImagePart | AudioPart | VideoPart | DocumentPart | BinaryPart | ToolCallPart | ToolResultPart

/**
 * A finished message of a session; `seq` is the seq of the event that finished it.
 *
 * `userMessageId` is the id of the message that an agent's message answers. If a run does not end with `end_turn`, its
 * last message has the `stopReason` of the run, and the `error` of the run if it failed. If such a run has no message,
 * an empty message has these fields. A run that is cancelled in the queue adds no message.
 */
export interface Message {
  messageId: string
  role: 'user' | 'assistant'
  content: string
  agentId?: string
  runId?: string
  author?: Author
  seq?: number
  ts: number
  parts?: Part[]
  metadata?: Record<string, unknown>
  userMessageId?: string
  stopReason?: StopReason
  error?: Failure
}

/** A piece of a model's reasoning. The hub sets `messageId`: consecutive pieces have the same one. */
export interface ReasoningEvent extends RunEvent {
  type: 'reasoning'
  delta: string
  messageId: string
}

/** A tool call begins; its arguments follow in pieces. */
export interface ToolCallStartEvent extends RunEvent {
  type: 'tool_call_start'
  toolCallId: string
  toolCallName: string
}

/** A piece of the arguments of a tool call, as JSON text. */
export interface ToolCallArgsEvent extends RunEvent {
  type: 'tool_call_args'
  toolCallId: string
  delta: string
}

/** The arguments of a tool call are complete. */
export interface ToolCallEndEvent extends RunEvent {
  type: 'tool_call_end'
  toolCallId: string
}

/** The result of a tool call. A large result is cut; then the file `fileId` holds all of its `size` bytes. */
export interface ToolCallResultEvent extends RunEvent {
  type: 'tool_call_result'
  toolCallId: string
  content: string
  isError?: boolean
  fileId?: string
  size?: number
}

/** The progress of a run, from 0 to 1. */
export interface ProgressEvent extends RunEvent {
  type: 'progress'
  progress: number
  message?: string
}

/** A step of the work begins. */
export interface StepStartedEvent extends RunEvent {
  type: 'step_started'
  stepName: string
}

/** A step of the work is done. */
export interface StepFinishedEvent extends RunEvent {
  type: 'step_finished'
  stepName: string
}

/** An event that an agent defines, for clients that know its `name`; `value` is any JSON. */
export interface CustomEvent extends RunEvent {
  type: 'custom'
  name: string
  value?: unknown
}

/** The complete state that agent and clients share, as JSON. */
export interface StateSnapshotEvent extends RunEvent {
  type: 'state_snapshot'
  snapshot: unknown
}

/** Changes to the shared state, as JSON Patch (RFC 6902). */
export interface StateDeltaEvent extends RunEvent {
  type: 'state_delta'
  delta: Record<string, unknown>[]
}

/** A message of a user to an agent. */
export interface UserMessageEvent extends SessionEvent {
  type: 'user_message'
  messageId: string
  author: Author
  content: string
  clientMsgId?: string
  parts?: Part[]
  metadata?: Record<string, unknown>
}

/**
 * A run begins. The agent's code is called after this commit. `messageId` is the id of the run's first message.
 *
 * A run that answers the results of tool calls has the id of the run with the calls as `parentRunId`.
 */
export interface RunStartedEvent extends RunEvent {
  type: 'run_started'
  messageId: string
  attempt: number
  parentRunId?: string
}

/** A piece of a streamed message; `offset` is the number of the message's code points before this piece. */
export interface ChunkEvent extends RunEvent {
  type: 'stream'
  messageId: string
  content: string
  offset: number
}

/**
 * A message in one piece.
 *
 * Only copies in a fork have `stopReason` and `error`: the copy of the last message of a run that did not end with
 * `end_turn`.
 */
export interface WholeMessageEvent extends SessionEvent {
  type: 'message'
  agentId?: string
  runId?: string
  messageId: string
  content: string
  parts?: Part[]
  stopReason?: StopReason
  error?: Failure
}

/** The error of a failed run. It is in the same commit as the `run_finished` that follows it. */
export interface RunErrorEvent extends RunEvent {
  type: 'run_error'
  code: string
  message: string
  retryable: boolean
  retryAfterMs?: number
}

/** The end of a run; each run has exactly one. `messageId` is the id of the run's last message. */
export interface RunFinishedEvent extends RunEvent {
  type: 'run_finished'
  messageId: string
  stopReason: StopReason
  usage?: Usage
}

/** The hub has removed these messages: clients delete them from the screen. */
export interface MessageRemovedEvent extends SessionEvent {
  type: 'message_removed'
  agentId?: string
  runId?: string
  messageIds: string[]
  reason: RemovalReason
}

/** A question of a run. The run waits for an answer. `responseSchema` is the JSON schema of a valid answer. */
export interface InterruptEvent extends RunEvent {
  type: 'interrupt'
  id: string
  reason: string
  message?: string
  toolCallId?: string
  responseSchema?: Record<string, unknown>
  expiresAt?: string
}

/** A question is closed by an answer, or (without `resolvedBy`) because its run no longer waits. */
export interface InterruptResolvedEvent extends RunEvent {
  type: 'interrupt_resolved'
  interruptId: string
  status: ReplyStatus
  resolvedBy?: Author
  payload?: unknown
}

/**
 * The agent calls another agent: `name` is its id. Only the caller gets its text.
 *
 * `parentSubagentRunId` is the call of the agent that calls, unless it is the run's own agent.
 */
export interface SubagentStartedEvent extends RunEvent {
  type: 'subagent_started'
  subagentRunId: string
  name: string
  parentSubagentRunId?: string
}

/** A called agent has ended, or its caller needs no more of its text. */
export interface SubagentFinishedEvent extends RunEvent {
  type: 'subagent_finished'
  subagentRunId: string
}

/** A called agent has failed, or was cancelled with its caller. The run may go on. */
export interface SubagentErrorEvent extends RunEvent {
  type: 'subagent_error'
  subagentRunId: string
  message: string
  code?: string
}

/** An event of a session's log; `seq` numbers the events of a session. */
export type Event =
  | ReasoningEvent
  | ToolCallStartEvent
  | ToolCallArgsEvent
  | ToolCallEndEvent
  | ToolCallResultEvent
  | ProgressEvent
  | StepStartedEvent
  | StepFinishedEvent
  | CustomEvent
  | StateSnapshotEvent
  | StateDeltaEvent
  | UserMessageEvent
  | RunStartedEvent
  | ChunkEvent
  | WholeMessageEvent
  | RunErrorEvent
  | RunFinishedEvent
  | MessageRemovedEvent
  | InterruptEvent
  | InterruptResolvedEvent
  | SubagentStartedEvent
  | SubagentFinishedEvent
  | SubagentErrorEvent

/** The state of a session: its active runs, its queue in order, and its open questions. */
export interface StateNotice {
  type: 'state'
  sessionId: string
  state: 'running' | 'idle' | 'queued' | 'requires_action'
  active: Run[]
  queue: Run[]
  interrupts?: OpenQuestion[]
}

/** The members of a session, and their number. With more than `presence_members`, only the number is sent. */
export interface PresenceNotice {
  type: 'presence'
  sessionId: string
  count: number
  members?: Author[]
}

/** A member of the session is typing. */
export interface TypingNotice {
  type: 'typing'
  sessionId: string
  author: Author
}

/** The role of the principal in a session has changed. */
export interface RoleNotice {
  type: 'role'
  sessionId: string
  role: SessionRole
}

/**
 * A command was refused or failed, or a subscription failed. `code` is stable, `message` is for people.
 *
 * With the code `quota_exceeded`, `limit` is the quota, and `used` is what counts for it now; `renewsAt` (ms) is the
 * end of the day if the quota is for a day.
 */
export interface ErrorNotice {
  type: 'error'
  code: string
  message: string
  sessionId?: string
  agentId?: string
  runId?: string
  clientMsgId?: string
  retryAfterMs?: number
  limit?: number
  used?: number
  renewsAt?: number
}

/** The hub shuts down; it closes the connection with 1012 within `withinMs` milliseconds. */
export interface DrainingNotice {
  type: 'draining'
  withinMs: number
}

/** The answer to `hello`, and the first frame under the subprotocol `hubbub.v1`. */
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

/**
 * The answer to `subscribe`. For a session, it has the head of the log, the members and the active runs.
 *
 * While sign-in is on, it also has the role of the principal in the session.
 */
export interface Subscribed {
  type: 'subscribed'
  sessionId: string
  agentId?: string
  epoch?: string
  seq: number
  agents: string[]
  members?: Author[]
  active: Run[]
  history?: Message[]
  role?: SessionRole
}

/** A command is stored at `seq` in the log. Its run has started, or waits at `position` (from 1) in the queue. */
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

/** These runs are being stopped; a `run_finished` follows for each. */
export interface Cancelling {
  type: 'cancelling'
  sessionId: string
  runIds: string[]
}

/** The cursor is no longer valid: discard the session, show `messages`, and continue with the events that follow. */
export interface Reset {
  type: 'reset'
  sessionId: string
  reason: 'epoch_changed' | 'too_old' | 'past_head'
  epoch?: string
  messages: Message[]
}

/** A message of the hub that is not in the log, and has no number. */
export type Notice =
  | StateNotice
  | PresenceNotice
  | TypingNotice
  | RoleNotice
  | ErrorNotice
  | DrainingNotice

// --- end of the written types ---

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
