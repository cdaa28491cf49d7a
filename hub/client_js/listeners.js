const MAX_LISTENERS = 100

/** @typedef {(value: any) => void} Listener */

/** The functions that a program has registered with `on(kind, listener)`. */
export class Listeners {
  /** @type {Map<string, Set<{ listener: Listener }>>} */
  #entries = new Map() // by kind

  get size() {
    return [...this.#entries.values()].reduce((sum, entries) => sum + entries.size, 0)
  }

  /**
   * Register a listener; return the function that removes it.
   * @param {string} kind
   * @param {Listener} listener
   */
  add(kind, listener) {
    const entries = this.#entries.get(kind) ?? new Set()
    if (entries.size >= MAX_LISTENERS) {
      throw new RangeError(`"${kind}" has ${MAX_LISTENERS} listeners, the most: remove one first`)
    }
    const entry = { listener } // the same function, registered twice, is called twice
    this.#entries.set(kind, entries.add(entry))
    return () => void entries.delete(entry)
  }

  /**
   * Call all listeners of a kind. An error of one is reported as uncaught, and the next ones are called.
   * @param {string} kind
   * @param {unknown} value
   */
  emit(kind, value) {
    const entries = this.#entries.get(kind) ?? new Set()
    for (const entry of [...entries]) {
      if (!entries.has(entry)) continue // a listener before it has removed it
      try {
        entry.listener(value)
      } catch (error) {
        queueMicrotask(() => { throw error })
      }
    }
  }
}
