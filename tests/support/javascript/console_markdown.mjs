// Markdown that grows is what it would be at once.
import assert from 'node:assert/strict'
import { pretty } from './console/json.js'
import { grow, safe } from './console/markdown.js'

const plain = (it) =>
  it == null || it === false
    ? ''
    : Array.isArray(it)
      ? it.map(plain).join('')
      : typeof it !== 'object'
        ? String(it)
        : typeof it.type === 'function'
          ? plain(it.props.children)
          : `<${it.type}${it.props.href ? ` ${it.props.href}` : ''}>${plain(it.props.children)}</${it.type}>`
const shown = (text) => plain(grow(text).blocks)

assert.equal(
  shown('# A\n\n**b** _c_ `d<e` &lt;&amp;&#65;'),
  '<p>A</p><p><strong>b</strong> <em>c</em> <code>d<e</code> <&A</p>',
)
assert.equal(shown('<b>x</b>\n\n<script>y</script>'), '<p><b>x</b></p><p><script>y</script></p>')
assert.equal(shown('![a](http://x.example/i.png)'), '<p><span>a (http://x.example/i.png)</span></p>')
assert.equal(shown('[a](javascript:b)'), '<p>a (javascript:b)</p>')
assert.equal(shown('[a](https://b.example/c)'), '<p><a https://b.example/c>a</a></p>')
assert.equal(shown('1. a\n2. b'), '<ol><li>a</li><li>b</li></ol>')


// The box of a task stands in the line of its text; a formula keeps its backslashes; an escape is one.
assert.equal(
  shown('- [ ] x **y**\n- [x] z\n  1. [ ] deep'),
  '<ul><li><input></input> x <strong>y</strong></li><li><input></input> z<ol><li><input></input> deep</li></ol></li></ul>',
)
for (const formula of ['\\[ a_1 \\\\ b_2 \\{c\\} \\]', '\\(x\\)', '\\[\n\\frac{1}{2}\n\\]', '$$\\int_0^1 x\\,dx *2* $$'])
  assert.equal(shown(`so ${formula} *is*`), `<p>so ${formula} <em>is</em></p>`)
assert.equal(shown('\\*a\\* \\[b \\# $$$ *c* $$'), '<p>*a* [b # $$$ *c* $$</p>')
assert.equal(shown('$5 *a* $$'), '<p>$5 <em>a</em> $$</p>')

// Headings are in order, whatever their marks: each is at most one level below the one before.
const levels = (it) =>
  Array.isArray(it)
    ? it.flatMap(levels)
    : it && typeof it === 'object'
      ? [...(it.props['aria-level'] ? [it.props['aria-level']] : []), ...levels(it.props.children)]
      : []
const headings = '#### a\n\n# b\n\n### c\n\n> ###### d\n\n- # e\n\n## f\n\n###### g'
assert.deepEqual(levels(grow(headings).blocks), [3, 3, 4, 5, 3, 4, 5])
assert.deepEqual(levels([...headings].reduce((before, _, at) => grow(headings.slice(0, at + 1), before), undefined).blocks), [3, 3, 4, 5, 3, 4, 5])

for (const no of [
  'javascript:a',
  ' javascript:a',
  'JAVASCRIPT:a',
  'data:text/html,a',
  'vbscript:a',
  'file:///a',
  '/a',
  '//a',
  'blob:https://a/b',
  '',
])
  assert.equal(safe(no), undefined, no)
for (const yes of ['https://a.example/', 'http://a.example/', 'mailto:a@b.example']) assert.equal(safe(yes), yes)

// In pieces at random, it ends as the same; what is whole is not made anew.
const text =
  '# H\r\n\r\npara *one*\nstill\n\n- a\n\n- b\n  - c\n\n1. x\n\n> quote\n> more\n\n```py\nif a < b:\n\n    pass\n```\n\n| a | b |\n|---|:-:|\n| 1 | `|` |\n\n<div>\nraw\n</div>\n\n---\n\nend'.repeat(
    3,
  )
const seed = Number(process.argv[2] ?? Date.now() % 1e6)
let chance = seed
const next = (most) => (chance = (chance * 48271 + 11) % 2147483647) % most
for (let round = 0; round < 50; round++) {
  let state
  let kept = []
  for (let at = 0; at < text.length;) {
    at += 1 + next(20)
    state = grow(text.slice(0, at), state)
    for (const [index, one] of kept.entries())
      assert.equal(state.blocks[index], one, `block ${index} was made anew, seed ${seed}`)
    kept = state.done
  }
  assert.equal(plain(state.blocks), shown(text), `seed ${seed}`)
}

// A paragraph without end is laid out in several, none of its text is lost, and none of it looks like something else.
const long = 'word - # 1. more '.repeat(2000) + 'end'
let state
for (let at = 0; at < long.length; at += 500) state = grow(long.slice(0, at + 500), state)
assert.ok(state.blocks.length > 8 && state.text.length - state.from <= 4000)
assert.equal(
  plain(state.blocks)
    .replaceAll('</p><p>', '')
    .replace(/<\/?p>/g, ''),
  long,
)

// However deep a text is nested, its tree is not; what is deeper is shown as it was written.
const depth = (it) =>
  Array.isArray(it)
    ? Math.max(0, ...it.map(depth))
    : it && typeof it === 'object'
      ? (typeof it.type === 'string' ? 1 : 0) + depth(it.props.children)
      : 0
for (const text of ['>', '> ', '- ', '1. ', '- > ', '***'].map((one) => one.repeat(5000) + 'x' + '*'.repeat(15000))) {
  const { blocks } = grow(text)
  assert.ok(depth(blocks) <= 25, `${depth(blocks)} levels of ${text.slice(0, 4)}`)
  assert.ok(plain(blocks).includes('x'))
}
assert.equal(shown('> '.repeat(9) + 'x'), '<blockquote>'.repeat(9) + '<p>x</p>' + '</blockquote>'.repeat(9))

// JSON is indented, unless that makes it endless.
assert.equal(pretty('{"a": [1, "[,{"]}'), '{\n  "a": [\n    1,\n    "[,{"\n  ]\n}')
for (const deep of ['['.repeat(5000) + ']'.repeat(5000), '['.repeat(200) + '1,'.repeat(50_000) + '1' + ']'.repeat(200), '{"a":'.repeat(4000) + '1' + '}'.repeat(4000), '['.repeat(99_999)])
  assert.equal(pretty(deep), deep)

// A text that is another one begins anew.
assert.equal(plain(grow('b', grow('a')).blocks), '<p>b</p>')
