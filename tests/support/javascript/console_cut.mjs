// Where the console cuts text: between two characters as people see them.
import assert from 'node:assert/strict'
import { cut } from './console/html.js'
import { another } from './console/past.js'

const FAMILY = '👨‍👩‍👧‍👦'
assert.equal(cut('short', 5), 'short')
assert.equal(cut('longer', 4), 'long')
for (let before = 1; before <= 12; before++) {
  const text = 'a'.repeat(before) + FAMILY + 'b'
  assert.equal(cut(text, 12), 'a'.repeat(before) + (before === 1 ? FAMILY : ''), before)
}
assert.equal(cut('e\u0301'.repeat(3), 3), 'e\u0301')
assert.equal(cut('\u{1f1e9}\u{1f1ea}'.repeat(3), 10), '\u{1f1e9}\u{1f1ea}'.repeat(2))

// A character that is longer than the room is cut inside, and no half of a code point is left alone.
assert.equal(cut('e' + '\u0301'.repeat(10_000), 300).length, 300)
assert.ok(cut('👍', 1).isWellFormed())

// The title of a fork is one that the hub takes: at most 200 characters, and no lone half.
for (let before = 180; before <= 190; before++) {
  const title = another('a'.repeat(before) + FAMILY, [])
  assert.ok(title.isWellFormed() && title.length <= 200)
  assert.equal(title, 'a'.repeat(before) + (before + FAMILY.length <= 190 ? FAMILY : '') + ' (2)')
}
