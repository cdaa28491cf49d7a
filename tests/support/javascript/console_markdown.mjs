// Markdown that is parsed piece by piece is the same as Markdown that is parsed at once.
import assert from 'node:assert/strict'
import { indentJson } from './console/json.js'
import { parse, safeAddress } from './console/markdown.js'

const plain = (tree) =>
  tree == null || tree === false
    ? ''
    : Array.isArray(tree)
      ? tree.map(plain).join('')
      : typeof tree !== 'object'
        ? String(tree)
        : typeof tree.type === 'function'
          ? plain(tree.props.children)
          : `<${tree.type}${tree.props.href ? ` ${tree.props.href}` : ''}>${plain(tree.props.children)}</${tree.type}>`
const shown = (text) => plain(parse(text).blocks)

assert.equal(
  shown('# A\n\n**b** _c_ `d<e` &lt;&amp;&#65;'),
  '<p>A</p><p><strong>b</strong> <em>c</em> <code>d<e</code> <&A</p>',
)
assert.equal(shown('<b>x</b>\n\n<script>y</script>'), '<p><b>x</b></p><p><script>y</script></p>')
assert.equal(shown('![a](http://x.example/i.png)'), '<p><span>a (http://x.example/i.png)</span></p>')
assert.equal(shown('[a](javascript:b)'), '<p>a (javascript:b)</p>')
assert.equal(shown('[a](https://b.example/c)'), '<p><a https://b.example/c>a</a></p>')
assert.equal(shown('1. a\n2. b'), '<ol><li>a</li><li>b</li></ol>')


// The checkbox of a task is in the line of its text; a formula keeps its backslashes; an escape has its effect.
assert.equal(
  shown('- [ ] x **y**\n- [x] z\n  1. [ ] deep'),
  '<ul><li><input></input> x <strong>y</strong></li><li><input></input> z<ol><li><input></input> deep</li></ol></li></ul>',
)
for (const formula of ['\\[ a_1 \\\\ b_2 \\{c\\} \\]', '\\(x\\)', '\\[\n\\frac{1}{2}\n\\]', '$$\\int_0^1 x\\,dx *2* $$'])
  assert.equal(shown(`so ${formula} *is*`), `<p>so ${formula} <em>is</em></p>`)
assert.equal(shown('\\*a\\* \\[b \\# $$$ *c* $$'), '<p>*a* [b # $$$ *c* $$</p>')
assert.equal(shown('$5 *a* $$'), '<p>$5 <em>a</em> $$</p>')

// Levels of headings have no gaps: each heading is at most one level below the one before.
const levels = (tree) =>
  Array.isArray(tree)
    ? tree.flatMap(levels)
    : tree && typeof tree === 'object'
      ? [...(tree.props['aria-level'] ? [tree.props['aria-level']] : []), ...levels(tree.props.children)]
      : []
const headings = '#### a\n\n# b\n\n### c\n\n> ###### d\n\n- # e\n\n## f\n\n###### g'
assert.deepEqual(levels(parse(headings).blocks), [3, 3, 4, 5, 3, 4, 5])
assert.deepEqual(levels([...headings].reduce((before, _, index) => parse(headings.slice(0, index + 1), before), undefined).blocks), [3, 3, 4, 5, 3, 4, 5])

for (const address of [
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
  assert.equal(safeAddress(address), undefined, address)
for (const address of ['https://a.example/', 'http://a.example/', 'mailto:a@b.example']) assert.equal(safeAddress(address), address)

// In random pieces the result is the same, and finished blocks stay the same objects.
const text =
  '# H\r\n\r\npara *one*\nstill\n\n- a\n\n- b\n  - c\n\n1. x\n\n> quote\n> more\n\n```py\nif a < b:\n\n    pass\n```\n\n| a | b |\n|---|:-:|\n| 1 | `|` |\n\n<div>\nraw\n</div>\n\n---\n\nend'.repeat(
    3,
  )
const seed = Number(process.argv[2] ?? Date.now() % 1e6)
let chance = seed
const next = (most) => (chance = (chance * 48271 + 11) % 2147483647) % most
for (let round = 0; round < 50; round++) {
  let state
  let done = []
  for (let end = 0; end < text.length;) {
    end += 1 + next(20)
    state = parse(text.slice(0, end), state)
    for (const [index, block] of done.entries())
      assert.equal(state.blocks[index], block, `block ${index} is a new object, seed ${seed}`)
    done = state.done
  }
  assert.equal(plain(state.blocks), shown(text), `seed ${seed}`)
}

// A very long paragraph is split: no text is lost, and no part becomes a list or a heading.
const long = 'word - # 1. more '.repeat(2000) + 'end'
let state
for (let end = 500; end < long.length + 500; end += 500) state = parse(long.slice(0, end), state)
assert.ok(state.blocks.length > 8 && state.text.length - state.from <= 4000)
assert.equal(
  plain(state.blocks)
    .replaceAll('</p><p>', '')
    .replace(/<\/?p>/g, ''),
  long,
)

// The depth of the tree has a limit: deeper text is shown unparsed.
const depth = (tree) =>
  Array.isArray(tree)
    ? Math.max(0, ...tree.map(depth))
    : tree && typeof tree === 'object'
      ? (typeof tree.type === 'string' ? 1 : 0) + depth(tree.props.children)
      : 0
for (const mark of ['>', '> ', '- ', '1. ', '- > ', '***']) {
  const { blocks } = parse(mark.repeat(5000) + 'x' + '*'.repeat(15000))
  assert.ok(depth(blocks) <= 25, `${depth(blocks)} levels of ${mark}`)
  assert.ok(plain(blocks).includes('x'))
}
assert.equal(shown('> '.repeat(9) + 'x'), '<blockquote>'.repeat(9) + '<p>x</p>' + '</blockquote>'.repeat(9))

// JSON is indented, unless the indentation is too long.
assert.equal(indentJson('{"a": [1, "[,{"]}'), '{\n  "a": [\n    1,\n    "[,{"\n  ]\n}')
for (const deep of ['['.repeat(5000) + ']'.repeat(5000), '['.repeat(200) + '1,'.repeat(50_000) + '1' + ']'.repeat(200), '{"a":'.repeat(4000) + '1' + '}'.repeat(4000), '['.repeat(99_999)])
  assert.equal(indentJson(deep), deep)

// Another text is parsed from its beginning.
assert.equal(plain(parse('b', parse('a')).blocks), '<p>b</p>')
