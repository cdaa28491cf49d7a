/** @import { Token } from './client.js' */

/** The token of a client: a text that never changes, or a function, which is asked for each connection. */
export class TokenSource {
  #token
  /** @type {string | undefined} */
  #last

  /** @param {Token | undefined} token */
  constructor(token) {
    this.#token = token ?? undefined
  }

  /** Return true if a token will be sent. */
  get exists() {
    return this.#token !== undefined
  }

  /** Return the token of a new connection; undefined without one. Rejects if the function fails. */
  async renew() {
    this.#last = typeof this.#token === 'function' ? await this.#token() : this.#token
    return this.#last
  }

  /** Return the token of the last connection; before the first one, that of a new connection. */
  async last() {
    return this.#last ?? (await this.renew())
  }
}
