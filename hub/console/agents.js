// The list of agents of the hub, over HTTP.
import { fetchJson } from './http.js'

/** Make the object that loads `ui.agents`. */
export function makeAgents(ui, change) {
  async function load() {
    try {
      change({ agents: (await fetchJson('/api/v1/agents')).data })
    } catch {
      // the page goes on with the agents that it has
    }
  }

  return {
    load,
    async reload(agentId) {
      try {
        await fetchJson(`/api/v1/agents/${encodeURIComponent(agentId)}/reload`, { method: 'POST' })
      } finally {
        await load() // its file may have been deleted
      }
    },
    /** Return the agent, or the first one that works if the hub does not have it. */
    existing(agent) {
      if (ui.agents.some(({ agentId }) => agentId === agent)) return agent
      return ui.agents.find(({ status }) => status === 'ok')?.agentId ?? agent
    },
  }
}
