// Values that the page derives from the state of a session: see session.js.
import { findLast } from './items.js'

/** Return true if all events up to `head` are here, or can be loaded as earlier messages. */
export const isLoaded = ({ seq, head, from }) => seq >= head && from !== undefined

/** Return the speed of an answer: exact if the model counted its tokens, else estimated. */
export function measurements(run) {
  if (run.startedAt === undefined || run.charCount === 0) return undefined
  const first = run.firstAt === undefined ? undefined : run.firstAt - run.startedAt
  const tokens = run.usage?.outputTokens ?? Math.max(1, Math.round(run.tokenEstimate))
  const ms = run.lastAt - (run.firstAt ?? run.startedAt)
  return {
    first,
    tokens,
    exact: run.usage?.outputTokens !== undefined,
    input: run.usage?.inputTokens,
    rate: ms > 0 ? (tokens * 1000) / ms : undefined,
  }
}

/** Return the text of an answer, as Markdown. */
export const textOf = (run) =>
  run.parts
    .filter(({ kind }) => kind === 'text')
    .map(({ text }) => text)
    .join('\n\n')

/** Count the messages that an edit, or a new answer, also removes: all after the message, except its own answer. */
export function countFollowing({ items }, item) {
  const index = items.indexOf(item)
  const from = item.kind === 'user' ? index : items.slice(0, index).findLastIndex(({ kind }) => kind === 'user')
  const after = items.slice(from + 1).filter(({ kind, id }) => kind === 'run' || id)
  return after.length - (after.some(({ kind }) => kind === 'run') ? 1 : 0)
}

/** Return the queued runs, each with the message that it answers. */
export const queuedRuns = (state) => state.queue.map((run) => ({ ...run, userMessage: userMessageOf(state, run) }))

/** Return the open questions. While the page catches up, leave out newer ones: their replies may follow. */
export const openQuestions = ({ items, completeSeq }) =>
  items
    .filter(({ kind, state }) => kind === 'run' && state === 'running')
    .flatMap(({ parts }) => parts.filter(({ kind, question, reply }) => kind === 'question' && !reply && question.seq <= completeSeq))

/** Return true if this person wrote a message. Without sign-in everyone is the same person. */
export const isMine = ({ author }, myId) => !author || !myId || author.id === myId

export const isBusy = (state) => state.active.length > 0

const userMessageOf = (state, { userMessageId }) => state.items[findLast(state.items, 'user', userMessageId)]
