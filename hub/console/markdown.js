// Markdown as a tree for the page. It grows: of a text that got longer only the last block is read again.
//
// No markup is ever made of text. Raw HTML is shown as it was written, links lead only where LINKS says, and images are
// not fetched: their text and their address are shown.
import { Lexer, Tokenizer } from './vendor/marked.js'
import { html } from './html.js'
import { t } from './words.js'

const LINKS = new Set(['http:', 'https:', 'mailto:'])
const LONGEST = 4000 // characters of one paragraph: a longer one is laid out in several, or each piece costs its length
const LINES = 40 // of code in one element, for the same reason
const DEEPEST = 10 // nested quotes, lists or marks: deeper text is shown as it was written
const TITLE = 2 // the level of the heading above a text, which names its author
const ENTITIES = { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'", nbsp: '\u00a0' }

/** Begin, or go on with, a text: pass what the last call returned. *blocks* are what to show. */
export function grow(given, before) {
  const text = given.replace(/\r\n?/g, '\n')
  const same = before && text.startsWith(before.text)
  if (same && text.length === before.text.length) return before
  const { done, from, above } = same ? before : { done: [], from: 0, above: TITLE }
  const fresh = lexed(text.slice(from)).flatMap(parted)
  const closed = fresh.slice(0, lastBlock(fresh))
  const rest = fresh.slice(closed.length)
  const level = rank(closed, above)
  rank(rest, level)
  const ready = [...done, ...shown(closed, done.length)]
  return {
    text,
    from: from + closed.reduce((sum, { raw }) => sum + raw.length, 0),
    above: level,
    done: ready,
    blocks: [...ready, ...shown(rest, ready.length)],
  }
}

/** A lexer that calls itself at most DEEPEST times: text that is nested a thousand levels deep would overflow the stack. */
class Shallow extends Lexer {
  #depth = 0

  blockTokens(text, tokens = [], clipped = false) {
    return this.#deeper(text, tokens, () => super.blockTokens(text, tokens, clipped))
  }

  inlineTokens(text, tokens = []) {
    return this.#deeper(text, tokens, () => super.inlineTokens(text, tokens))
  }

  #deeper(text, tokens, read) {
    if (this.#depth === DEEPEST) {
      tokens.push({ type: 'deep', raw: text })
      return tokens
    }
    this.#depth++
    try {
      return read()
    } finally {
      this.#depth--
    }
  }
}

const FORMULA = /^(?:\\\[[^]{1,1000}?\\\]|\\\([^]{1,1000}?\\\)|\$\$[^]{1,1000}?\$\$)/

class Formulas extends Tokenizer {
  /** A formula in \[ \], \( \) or $$ $$ is shown as it was written: its backslashes are no escapes. */
  escape(text) {
    const [raw] = FORMULA.exec(text) ?? []
    return raw ? { type: 'escape', raw, text: raw } : super.escape(text)
  }

  /** Text ends where a formula may begin. */
  inlineText(text) {
    const at = text.indexOf('$$', 1)
    return super.inlineText(at < 0 ? text : text.slice(0, at))
  }
}

const lexer = () => new Shallow({ gfm: true, tokenizer: new Formulas() })
const lexed = (text) => lexer().lex(text)
const inlined = (text) => lexer().inlineTokens(text)

/** Give each heading a level, at most one more than the heading before; return the level of the last heading. */
function rank(tokens, above) {
  for (const token of tokens) {
    if (token.type === 'heading') above = token.level = Math.min(TITLE + token.depth, above + 1, 6)
    else above = rank(token.items ?? token.tokens ?? [], above)
  }
  return above
}

/** Where the block begins that may still change: the last that is not empty. */
function lastBlock(tokens) {
  const index = tokens.findLastIndex(({ type }) => type !== 'space')
  return Math.max(0, index)
}

const shown = (tokens, from) => tokens.map((token, index) => block(token, from + index))

/** Lay a paragraph without end out in several. */
function parted(token) {
  const pieces = []
  let rest = token.raw
  while (token.type === 'paragraph' && rest.length > LONGEST) {
    const at = seam(rest)
    pieces.push(rest.slice(0, at))
    rest = rest.slice(at)
  }
  if (!pieces.length) return [token]
  return [...pieces, rest].map((raw) => ({ type: 'paragraph', raw, tokens: inlined(raw), long: raw !== rest }))
}

/** Where to part a text: before a letter, so that what follows does not look like a list or a heading. */
function seam(text) {
  for (let at = LONGEST; at > LONGEST / 2; at--) {
    if (/[ \u2e80-\uffff]/.test(text[at - 1]) && /\p{L}/u.test(text[at])) return at
  }
  return LONGEST
}

const BLOCKS = {
  space: () => null,
  def: () => null,
  hr: () => html`<hr />`,
  heading: (token) =>
    html`<p class=${`h h${token.depth}`} role="heading" aria-level=${token.level}>${inlines(token.tokens)}</p>`,
  paragraph: (token) => html`<p class=${token.long ? 'long' : undefined}>${inlines(token.tokens)}</p>`,
  text: (token) => (token.tokens ? inlines(token.tokens) : plain(token.text)),
  html: (token) => html`<p class="raw">${token.raw.trimEnd()}</p>`,
  blockquote: (token) => html`<blockquote>${blocks(token.tokens)}</blockquote>`,
  code: (token) => code(token),
  list: (token) => list(token),
  table: (token) => table(token),
  checkbox: (token) => checkbox(token),
}

function block(token, key) {
  const made = (BLOCKS[token.type] ?? ((one) => html`<p>${one.raw}</p>`))(token)
  return html`<${Block} key=${key}>${made}<//>`
}

const Block = ({ children }) => children
const blocks = (tokens) => tokens.map((token, index) => block(token, index))

function code({ text, lang }) {
  const lines = text.split('\n')
  const pieces = []
  for (let at = 0; at < lines.length; at += LINES) pieces.push(lines.slice(at, at + LINES).join('\n'))
  return html`<div class="code">
    <div class="code-bar">
      <span>${(lang ?? '').split(/\s/)[0] || t('code')}</span>
      <button type="button" class="quiet" data-copy>${t('copy')}</button>
    </div>
    <pre tabindex="0"><code>${pieces.map((piece, index) => html`<span key=${index}>${piece + '\n'}</span>`)}</code></pre>
  </div>`
}

function list({ ordered, start, items }) {
  const rows = items.map(
    (item, index) => html`<li key=${index} class=${item.task ? 'task' : undefined}>${blocks(item.tokens)}</li>`,
  )
  return ordered ? html`<ol start=${start || 1}>${rows}</ol>` : html`<ul>${rows}</ul>`
}

const checkbox = ({ checked }) =>
  html`<input type="checkbox" disabled checked=${checked} aria-label=${t(checked ? 'checked' : 'unchecked')} /> `

function table({ header, rows }) {
  const cells = (row, kind) =>
    row.map(
      ({ tokens, align }, index) => html`<${kind} key=${index} class=${align ?? undefined}>${inlines(tokens)}<//>`,
    )
  return html`<div class="table" tabindex="0"><table>
    <thead><tr>${cells(header, 'th')}</tr></thead>
    <tbody>${rows.map((row, index) => html`<tr key=${index}>${cells(row, 'td')}</tr>`)}</tbody>
  </table></div>`
}

const INLINES = {
  text: (token) => (token.tokens ? inlines(token.tokens) : plain(token.text)),
  escape: (token) => token.text,
  html: (token) => token.raw,
  br: () => html`<br />`,
  strong: (token) => html`<strong>${inlines(token.tokens)}</strong>`,
  em: (token) => html`<em>${inlines(token.tokens)}</em>`,
  del: (token) => html`<del>${inlines(token.tokens)}</del>`,
  codespan: (token) => html`<code>${token.text}</code>`,
  checkbox: (token) => checkbox(token),
  image: ({ text, href }) => html`<span class="image">${text || t('image')} (${href})</span>`,
  link(token) {
    const address = safe(token.href)
    if (!address) return html`${inlines(token.tokens)}${token.text === token.href ? '' : ` (${token.href})`}`
    return html`<a href=${address} target="_blank" rel="noopener noreferrer">${inlines(token.tokens)}</a>`
  },
}

const inlines = (tokens) => tokens.map((token) => (INLINES[token.type] ?? ((one) => one.raw))(token))

/** The address of a link, where it may be followed. */
export function safe(href) {
  try {
    const url = new URL(href)
    return LINKS.has(url.protocol) ? url.href : undefined
  } catch {
    return undefined // relative, or none
  }
}

const plain = (text) =>
  text.replace(/&(?:#(\d{1,7})|#x([0-9a-f]{1,6})|(amp|lt|gt|quot|apos|nbsp));/gi, (whole, decimal, hex, name) => {
    if (name) return ENTITIES[name.toLowerCase()]
    const point = decimal ? Number(decimal) : parseInt(hex, 16)
    return point > 0 && point <= 0x10ffff && !(point >= 0xd800 && point <= 0xdfff) ? String.fromCodePoint(point) : whole
  })
