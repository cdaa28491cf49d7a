/**
 * A promise that its owner resolves or rejects. Promise.withResolvers() does this, too, but Node.js 20 lacks it.
 * @template T
 */
export class Deferred {
  constructor() {
    /** @type {(value: T) => void} */
    this.resolve = () => {}
    /** @type {(error?: Error) => void} */
    this.reject = () => {}
    /** @type {Promise<T>} */
    this.promise = new Promise((resolve, reject) => Object.assign(this, { resolve, reject }))
    this.promise.catch(() => {}) // a program that does not wait for the promise must not end because of the error
  }
}
