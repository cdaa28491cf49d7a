// Where the console cuts text: between two characters as people see them.
import assert from 'node:assert/strict'
import { cut } from './console/html.js'
import { another } from './console/past.js'

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

// A character that is longer than the room is cut inside, and no half of a code point is left alone.
assert.equal(cut('e' + '\u0301'.repeat(10_000), 300).length, 300)
assert.equal(cut(FAMILY, 1), '👨')
assert.ok(cut('ab\ud83d', 2).isWellFormed() && cut('\ud83dab', 2).isWellFormed())

// The title of a fork is one that the hub takes: at most 200 code points, as many as there is room for, and no lone half.
for (const letter of ['a', '👍']) {
  for (let before = 185; before <= 200; before++) {
    const title = another(letter.repeat(before) + FAMILY, [])
    assert.ok(title.isWellFormed() && length(title) <= 200)
    assert.equal(title, letter.repeat(Math.min(before, 196)) + (before + 7 <= 196 ? FAMILY : '') + ' (2)')
  }
}
const full = '👍'.repeat(196)
assert.equal(another(`${full} (2)`, [{ title: `${full} (2)` }]), `${full} (3)`)
const taken = Array.from({ length: 8 }, (_, at) => ({ title: `${full} (${at + 2})` }))
assert.equal(another(full, taken), `${'👍'.repeat(195)} (10)`)
