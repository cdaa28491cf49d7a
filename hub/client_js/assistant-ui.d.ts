/** The types of the hook for assistant-ui. docs/assistant-ui.md shows how to use it. */

import type { AssistantRuntime } from '@assistant-ui/react'
import type { HubbubAgent } from './agui.js'
import type { ReplyStatus } from './client.js'

/** An open question of an agent. */
export interface Question {
  id: string
  message?: string
  responseSchema?: Record<string, unknown>
}

export interface HubbubRuntime {
  /** For `AssistantRuntimeProvider`. */
  runtime: AssistantRuntime
  /** The questions that nobody has answered yet. As long as there is one, the composer sends no message. */
  questions: Question[]
  /** Answer a question; the status `cancelled` declines it. Never rejects: assistant-ui shows a failure as a message. */
  answer(questionId: string, payload?: unknown, status?: ReplyStatus): Promise<void>
}

/**
 * Show the session of an agent in assistant-ui, with attachments, edits and new answers. The agent must stay the same
 * object: make it outside of the component.
 */
export function useHubbubRuntime(agent: HubbubAgent): HubbubRuntime
