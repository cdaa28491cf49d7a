import { useMemo, useSyncExternalStore } from 'react'
import { ConversationStore } from './conversation.js'

/** @import * as client from './client.js' */
/** @import { ConversationOptions } from './react.js' */

/**
 * A session as the state of a component: see react.d.ts.
 * @param {client.Hub} hub
 * @param {string} sessionId
 * @param {ConversationOptions} [options]
 */
export function useHubbub(hub, sessionId, { agent, history } = {}) {
  const store = useMemo(() => new ConversationStore(hub, sessionId, { agent, history }), [hub, sessionId, agent, history])
  return useSyncExternalStore(store.subscribe, store.getSnapshot, store.getSnapshot)
}
