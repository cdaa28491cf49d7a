// Parse Markdown into a tree for the page. If a text gets longer, only its last block is parsed again.
//
// Text never becomes markup. Raw HTML is shown as text, links have only the protocols of LINK_PROTOCOLS, and images are
// not fetched: their text and their address are shown.
import { Lexer, Tokenizer } from './vendor/marked.js'
import { html } from './html.js'
import { t } from './words.js'

const LINK_PROTOCOLS = new Set(['http:', 'https:', 'mailto:'])
const MAX_PARAGRAPH = 4000 // characters: a longer paragraph is split, or each new piece of text costs its whole length
const MAX_CODE_LINES = 40 // of code in one element, for the same reason
const MAX_DEPTH = 10 // of nested quotes, lists or marks: deeper text is shown unparsed
const TITLE_LEVEL = 2 // of the heading above a text, which names its author
const ENTITIES = { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'", nbsp: '\u00a0' }

/**
 * Parse a text; `blocks` of the result are the trees to show.
 *
 * Pass the result of the last call as *before*: if that text is the beginning of this one, its finished blocks, `done`,
 * stay the same objects.
 */
export function parse(markdown, before) {
  const text = markdown.replace(/\r\n?/g, '\n')
  const isLonger = before && text.startsWith(before.text)
  if (isLonger && text.length === before.text.length) return before
  const { done, from, level } = isLonger ? before : { done: [], from: 0, level: TITLE_LEVEL }
  const tokens = lex(text.slice(from)).flatMap(splitParagraph)
  const finished = tokens.slice(0, lastBlockIndex(tokens))
  const open = tokens.slice(finished.length)
  const nextLevel = setHeadingLevels(finished, level)
  setHeadingLevels(open, nextLevel)
  const allDone = [...done, ...makeBlocks(finished, done.length)]
  return {
    text,
    from: from + finished.reduce((sum, { raw }) => sum + raw.length, 0),
    level: nextLevel,
    done: allDone,
    blocks: [...allDone, ...makeBlocks(open, allDone.length)],
  }
}

/** A lexer that calls itself at most MAX_DEPTH times: text that is nested a thousand levels deep would overflow the stack. */
class ShallowLexer extends Lexer {
  #depth = 0

  blockTokens(text, tokens = [], clipped = false) {
    return this.#nest(text, tokens, () => super.blockTokens(text, tokens, clipped))
  }

  inlineTokens(text, tokens = []) {
    return this.#nest(text, tokens, () => super.inlineTokens(text, tokens))
  }

  #nest(text, tokens, callback) {
    if (this.#depth === MAX_DEPTH) {
      tokens.push({ type: 'deep', raw: text })
      return tokens
    }
    this.#depth++
    try {
      return callback()
    } finally {
      this.#depth--
    }
  }
}

const FORMULA = /^(?:\\\[[^]{1,1000}?\\\]|\\\([^]{1,1000}?\\\)|\$\$[^]{1,1000}?\$\$)/

class FormulaTokenizer extends Tokenizer {
  /** Show a formula in \[ \], \( \) or $$ $$ unchanged: its backslashes are no escapes. */
  escape(text) {
    const [raw] = FORMULA.exec(text) ?? []
    return raw ? { type: 'escape', raw, text: raw } : super.escape(text)
  }

  /** End a text before a possible formula. */
  inlineText(text) {
    const index = text.indexOf('$$', 1)
    return super.inlineText(index < 0 ? text : text.slice(0, index))
  }
}

const makeLexer = () => new ShallowLexer({ gfm: true, tokenizer: new FormulaTokenizer() })
const lex = (text) => makeLexer().lex(text)
const lexInline = (text) => makeLexer().inlineTokens(text)

/** Give each heading a level, at most one more than the heading before; return the level of the last heading. */
function setHeadingLevels(tokens, level) {
  for (const token of tokens) {
    if (token.type === 'heading') level = token.level = Math.min(TITLE_LEVEL + token.depth, level + 1, 6)
    else level = setHeadingLevels(token.items ?? token.tokens ?? [], level)
  }
  return level
}

/** Return the index of the last block that is not empty: it may still change. */
function lastBlockIndex(tokens) {
  const index = tokens.findLastIndex(({ type }) => type !== 'space')
  return Math.max(0, index)
}

const makeBlocks = (tokens, from) => tokens.map((token, index) => block(token, from + index))

/** Split a paragraph that is too long into several. */
function splitParagraph(token) {
  const pieces = []
  let rest = token.raw
  while (token.type === 'paragraph' && rest.length > MAX_PARAGRAPH) {
    const index = splitIndex(rest)
    pieces.push(rest.slice(0, index))
    rest = rest.slice(index)
  }
  if (!pieces.length) return [token]
  return [...pieces, rest].map((raw) => ({ type: 'paragraph', raw, tokens: lexInline(raw), long: raw !== rest }))
}

/** Return where to split a text: before a letter, so that the rest does not look like a list or a heading. */
function splitIndex(text) {
  for (let index = MAX_PARAGRAPH; index > MAX_PARAGRAPH / 2; index--) {
    if (/[ \u2e80-\uffff]/.test(text[index - 1]) && /\p{L}/u.test(text[index])) return index
  }
  return MAX_PARAGRAPH
}

const BLOCKS = {
  space: () => null,
  def: () => null,
  hr: () => html`<hr />`,
  heading: (token) =>
    html`<p class=${`h h${token.depth}`} role="heading" aria-level=${token.level}>${inlines(token.tokens)}</p>`,
  paragraph: (token) => html`<p class=${token.long ? 'long' : undefined}>${inlines(token.tokens)}</p>`,
  text: (token) => (token.tokens ? inlines(token.tokens) : decodeEntities(token.text)),
  html: (token) => html`<p class="raw">${token.raw.trimEnd()}</p>`,
  blockquote: (token) => html`<blockquote>${blocks(token.tokens)}</blockquote>`,
  code: (token) => code(token),
  list: (token) => list(token),
  table: (token) => table(token),
  checkbox: (token) => checkbox(token),
}

function block(token, key) {
  const tree = (BLOCKS[token.type] ?? (({ raw }) => html`<p>${raw}</p>`))(token)
  return html`<${Block} key=${key}>${tree}<//>`
}

const Block = ({ children }) => children
const blocks = (tokens) => tokens.map((token, index) => block(token, index))

function code({ text, lang }) {
  const lines = text.split('\n')
  const pieces = []
  for (let line = 0; line < lines.length; line += MAX_CODE_LINES) pieces.push(lines.slice(line, line + MAX_CODE_LINES).join('\n'))
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
  const cells = (row, tag) =>
    row.map(
      ({ tokens, align }, index) => html`<${tag} key=${index} class=${align ?? undefined}>${inlines(tokens)}<//>`,
    )
  return html`<div class="table" tabindex="0"><table>
    <thead><tr>${cells(header, 'th')}</tr></thead>
    <tbody>${rows.map((row, index) => html`<tr key=${index}>${cells(row, 'td')}</tr>`)}</tbody>
  </table></div>`
}

const INLINES = {
  text: (token) => (token.tokens ? inlines(token.tokens) : decodeEntities(token.text)),
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
    const address = safeAddress(token.href)
    if (!address) return html`${inlines(token.tokens)}${token.text === token.href ? '' : ` (${token.href})`}`
    return html`<a href=${address} target="_blank" rel="noopener noreferrer">${inlines(token.tokens)}</a>`
  },
}

const inlines = (tokens) => tokens.map((token) => (INLINES[token.type] ?? (({ raw }) => raw))(token))

/** Return the address of a link; undefined if the link must not be followed. */
export function safeAddress(href) {
  try {
    const url = new URL(href)
    return LINK_PROTOCOLS.has(url.protocol) ? url.href : undefined
  } catch {
    return undefined // a relative address, or none
  }
}

const decodeEntities = (text) =>
  text.replace(/&(?:#(\d{1,7})|#x([0-9a-f]{1,6})|(amp|lt|gt|quot|apos|nbsp));/gi, (entity, decimal, hex, name) => {
    if (name) return ENTITIES[name.toLowerCase()]
    const point = decimal ? Number(decimal) : parseInt(hex, 16)
    return point > 0 && point <= 0x10ffff && !(point >= 0xd800 && point <= 0xdfff) ? String.fromCodePoint(point) : entity
  })
