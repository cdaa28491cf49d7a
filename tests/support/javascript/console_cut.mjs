// The console cuts text between two characters as people see them.
import assert from 'node:assert/strict'
import { cut } from './console/html.js'
import { forkTitle } from './console/session_list.js'

const FAMILY = '👨‍👩‍👧‍👦' // one character of 7 code points, 11 UTF-16 units
const FLAG = '\u{1f1e9}\u{1f1ea}'
const length = (text) => [...text].length
assert.equal(cut('short', 5), 'short')
assert.equal(cut('longer', 4), 'long')
assert.equal(cut('👍'.repeat(5), 5), '👍'.repeat(5))
assert.equal(cut('👍'.repeat(6), 5), '👍'.repeat(5))
for (let before = 1; before <= 12; before++) {
  const text = 'a'.repeat(before) + FAMILY + 'b'
  assert.equal(cut(text, 8), 'a'.repeat(Math.min(before, 8)) + (before === 1 ? FAMILY : ''), before)
}
assert.equal(cut('e\u0301'.repeat(3), 3), 'e\u0301')
assert.equal(cut(FLAG.repeat(3), 5), FLAG.repeat(2))

// A character that is longer than the limit is cut inside, but never inside a code point.
assert.equal(cut('e' + '\u0301'.repeat(10_000), 300).length, 300)
assert.equal(cut(FAMILY, 1), '👨')
assert.ok(cut('ab\ud83d', 2).isWellFormed() && cut('\ud83dab', 2).isWellFormed())

// The hub accepts the title of a fork: it has at most 200 code points, and as many as fit, and no lone surrogate.
for (const letter of ['a', '👍']) {
  for (let before = 185; before <= 200; before++) {
    const title = forkTitle(letter.repeat(before) + FAMILY, [])
    assert.ok(title.isWellFormed() && length(title) <= 200)
    assert.equal(title, letter.repeat(Math.min(before, 196)) + (before + 7 <= 196 ? FAMILY : '') + ' (2)')
  }
}
const full = '👍'.repeat(196)
assert.equal(forkTitle(`${full} (2)`, [{ title: `${full} (2)` }]), `${full} (3)`)
const forks = Array.from({ length: 8 }, (_, index) => ({ title: `${full} (${index + 2})` }))
assert.equal(forkTitle(full, forks), `${'👍'.repeat(195)} (10)`)
