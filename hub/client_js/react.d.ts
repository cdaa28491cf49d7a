/** The types of the hook for React. docs/react.md shows how to use it. */

import type {
  Accepted, Author, ChatOptions, Failure, Hub, HubError, InterruptEvent, Part, ReplyStatus, Session, State, StopReason, Usage,
} from './client.js'

/** A tool call in an answer; `arguments` is JSON text. */
export interface ToolCall {
  id: string
  name: string
  arguments: string
  result?: string
  isError?: boolean
}

/** A message of a session, finished or not. */
export interface ChatMessage {
  messageId: string
  role: 'user' | 'assistant'
  content: string
  /** The agent and the run of an answer. */
  agentId?: string
  runId?: string
  /** The author of a message that is no answer. */
  author?: Author
  ts?: number
  parts?: Part[]
  metadata?: Record<string, unknown>
  /** The answer is being written. */
  isStreaming: boolean
  /** This page has sent the message, and the hub has not accepted it yet. */
  isPending?: boolean
  /** The thoughts of the model. */
  reasoning?: string
  toolCalls: ToolCall[]
  /** Set on the last message of an answer that did not end with `end_turn`. */
  stopReason?: StopReason
  error?: Failure
  usage?: Usage
}

export interface ConversationOptions {
  /** The agent of messages that name none. */
  agent?: string
  /** The number of finished messages to begin with: 100 by default, which is the most. */
  history?: number
}

/** A session as the state of a component. Each change gives a new object; unchanged messages stay the same objects. */
export interface Conversation {
  /** The oldest first: finished ones, those that are being written, and those that are not accepted yet. */
  messages: ChatMessage[]
  /** Answers are being written. */
  isRunning: boolean
  /** The questions of agents that nobody has answered yet. */
  questions: InterruptEvent[]
  /** The people in the session; empty if there are more than the hub lists. */
  members: Author[]
  connection: State
  /** The error of the last command or subscription. The next `send` removes it. The error of an answer is in its message. */
  error?: HubError
  /** For everything else. Missing before the component is mounted. */
  session?: Session
  /** Send a message. Resolves when it is on the hub's disk. Never rejects: a failure is in `error`. */
  send(text: string, options?: ChatOptions): Promise<Accepted | undefined>
  /** Stop all answers of the session. */
  stop(): Promise<void>
  /** Answer a question; the status `cancelled` declines it. */
  answer(questionId: string, payload?: unknown, status?: ReplyStatus): Promise<void>
}

/** Show a session: the component is rendered again at each change. The session is open while the component is mounted. */
export function useHubbub(hub: Hub, sessionId: string, options?: ConversationOptions): Conversation
