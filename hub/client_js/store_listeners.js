/**
 * The listeners of a store for React. The store is open as long as there is a listener.
 */
export class StoreListeners {
  /** @type {Set<() => void>} */
  #listeners = new Set()
  #open
  #close

  /**
   * @param {() => void} open called for each new listener: does nothing if the store is open
   * @param {() => void} close called after the last listener was removed
   */
  constructor(open, close) {
    this.#open = open
    this.#close = close
  }

  /** @param {() => void} listener */
  subscribe = (listener) => {
    this.#listeners.add(listener)
    this.#open()
    return () => {
      this.#listeners.delete(listener)
      // Not at once: in its strict mode, React unsubscribes and subscribes again.
      setTimeout(() => this.#listeners.size || this.#close(), 0)
    }
  }

  /** Call all listeners: the snapshot of the store is another one. */
  notify() {
    for (const listener of [...this.#listeners]) listener()
  }
}
