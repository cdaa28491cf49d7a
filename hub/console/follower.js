// Keep a list scrolled to its end, unless its reader has scrolled up.

const END_PX = 48 // so near to the end counts as the end

export class Follower {
  isFollowing = true
  isEmpty = false // an empty list has no end to follow
  #list
  #top = 0
  #onChange

  /** *onChange* is called when `isFollowing` changes. */
  constructor(list, content, onChange) {
    this.#list = list
    this.#onChange = onChange
    list.addEventListener('scroll', () => this.#scroll(), { passive: true })
    new ResizeObserver(() => this.follow()).observe(content) // the browser lays out a block when it comes into sight
    new ResizeObserver(() => this.follow()).observe(list)
  }

  get #distanceToEnd() {
    return this.#list.scrollHeight - this.#list.scrollTop - this.#list.clientHeight
  }

  #scroll() {
    const isUp = this.#list.scrollTop < this.#top - 1
    this.#top = this.#list.scrollTop
    if (this.isEmpty) return
    if (this.#distanceToEnd <= END_PX) this.#setFollowing(true)
    else if (isUp) this.#setFollowing(false) // if only the end moved away, because text came, the list still follows
  }

  #setFollowing(isFollowing) {
    if (this.isFollowing === isFollowing) return
    this.isFollowing = isFollowing
    this.#onChange()
  }

  /** Scroll to the end if the list follows it. */
  follow() {
    if (!this.isFollowing || this.isEmpty) return
    this.#list.scrollTop = this.#list.scrollHeight
    this.#top = this.#list.scrollTop
  }

  scrollToEnd() {
    this.#setFollowing(true)
    this.follow()
  }

  /** Call *change*, which adds content above the visible part, and keep the visible part where it is. */
  holdPosition(change) {
    const below = this.#list.scrollHeight - this.#list.scrollTop
    change()
    if (!this.isFollowing) this.#top = this.#list.scrollTop = this.#list.scrollHeight - below
  }
}
