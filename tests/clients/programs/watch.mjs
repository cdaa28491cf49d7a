// What programs share that use an agent of AG-UI's client.

const TIMEOUT = 30_000 // in ms

/**
 * Return a function that waits until the messages of an agent have these texts.
 *
 * Call this before the agent runs: AG-UI's client does not tell later subscribers of a run that is going on.
 */
export function watch(agent) {
  const changes = new EventTarget()
  agent.subscribe({ onMessagesChanged: () => void setTimeout(() => changes.dispatchEvent(new Event('change'))) })
  return (...texts) =>
    new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(JSON.stringify(agent.messages))), TIMEOUT)
      const check = () => {
        if (JSON.stringify(agent.messages.map(({ content }) => content ?? '')) !== JSON.stringify(texts)) return
        clearTimeout(timer)
        changes.removeEventListener('change', check)
        resolve()
      }
      changes.addEventListener('change', check)
      check()
    })
}
