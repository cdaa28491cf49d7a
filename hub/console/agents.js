// The list of agents of the hub, over HTTP.
import { fetchJson } from './http.js'

/** Make the object that loads `ui.agents`. */
export function makeAgents(ui, change) {
  let loads = 0 // only the last load() may change the list

  async function load() {
    const loadId = ++loads
    try {
      const { data } = await fetchJson('/api/v1/agents')
      if (loadId === loads) change({ agents: data })
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
