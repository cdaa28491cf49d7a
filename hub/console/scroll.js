// A list that follows its end, unless its reader has scrolled up.

const NEAR = 48 // pixels from the end that still count as the end

export class Follower {
  following = true
  empty = false // there is nothing yet of which to follow the end
  #list
  #top = 0
  #told

  /** *told* is called when it begins or ceases to follow. */
  constructor(list, content, told) {
    this.#list = list
    this.#told = told
    list.addEventListener('scroll', () => this.#scrolled(), { passive: true })
    new ResizeObserver(() => this.keep()).observe(content) // what is laid out late, as a block that comes into sight
    new ResizeObserver(() => this.keep()).observe(list)
  }

  get #rest() {
    return this.#list.scrollHeight - this.#list.scrollTop - this.#list.clientHeight
  }

  #scrolled() {
    const up = this.#list.scrollTop < this.#top - 1
    this.#top = this.#list.scrollTop
    if (this.empty) return
    if (this.#rest <= NEAR) this.#turn(true)
    else if (up) this.#turn(false) // text that grows moves the end away: that is no reader who goes up
  }

  #turn(following) {
    if (this.following === following) return
    this.following = following
    this.#told()
  }

  keep() {
    if (!this.following || this.empty) return
    this.#list.scrollTop = this.#list.scrollHeight
    this.#top = this.#list.scrollTop
  }

  toEnd() {
    this.#turn(true)
    this.keep()
  }

  /** Keep what is seen in its place while *change* adds something above it. */
  hold(change) {
    const below = this.#list.scrollHeight - this.#list.scrollTop
    change()
    if (!this.following) this.#top = this.#list.scrollTop = this.#list.scrollHeight - below
  }
}
