// A question of an agent: buttons if its schema lists the answers, else a form.
import { Component, html } from '../html.js'
import { indentJson } from '../json.js'
import { t } from '../words.js'
import { Text } from './text.js'

const labelOf = (choice) => (typeof choice === 'string' ? choice : JSON.stringify(choice))

export class Question extends Component {
  answer = (payload) => this.props.act.reply(this.props.part.id, 'resolved', payload)
  decline = () => this.props.act.reply(this.props.part.id, 'cancelled')

  render({ part, running, canReply }) {
    const { question, reply } = part
    const open = running && !reply
    return html`<section class=${open ? 'ask open' : 'ask'} role="group" aria-label=${t('question')}>
      <h3>${t('question')}</h3>
      <${Text} part=${{ text: question.message ?? question.reason }} />
      ${open && canReply && html`<${Form} schema=${question.responseSchema} answer=${this.answer} decline=${this.decline} />`}
      ${reply && html`<div class="reply">${reply.status === 'resolved' ? html`${t('answered')}: ${answerTree(reply.payload, question.responseSchema)}` : t('declined')}</div>`}
      ${!open && !reply && html`<p class="reply">${t('declined')}</p>`}
    </section>`
  }
}

const MAX_LEVELS = 3 // deeper levels of an answer are shown as JSON

function answerTree(value, schema, level = 0) {
  if (typeof value === 'string') return html`<${Text} part=${{ text: value }} />`
  if (typeof value === 'boolean') return html`<b>${t(value ? 'yes' : 'no')}</b>`
  if (typeof value === 'number') return html`<b>${String(value)}</b>`
  if (value === null || value === undefined) return null
  if (level === MAX_LEVELS) return html`<code>${JSON.stringify(value)}</code>`
  if (Array.isArray(value))
    return html`<ul>${value.map((item, index) => html`<li key=${index}>${answerTree(item, schema?.items, level + 1)}</li>`)}</ul>`
  const rows = Object.entries(value).map(([name, item]) => {
    const property = schema?.properties?.[name]
    return html`<div key=${name}><dt>${property?.title ?? name}</dt><dd>${answerTree(item, property, level + 1)}</dd></div>`
  })
  return html`<dl>${rows}</dl>`
}

/** Return true if any text is an answer, so that the field for messages can be used. */
export const takesText = ({ question }) => kindOf(question.responseSchema) === 'text'

const FIELDS = { boolean: 'boolean', string: 'text', number: 'number', integer: 'number' }

/** Return the kind of form for a schema: an object is a form with a field for each of its properties. */
const kindOf = (schema) => (schema?.type === 'object' && schema.properties ? 'object' : fieldKindOf(schema))

const fieldKindOf = (schema) => (!schema ? 'text' : Array.isArray(schema.enum) ? 'choice' : (FIELDS[schema.type] ?? 'json'))

class Form extends Component {
  // Move the focus into the form, unless a person is writing a message. A focused button would be pressed by mistake.
  focus = (form) => {
    const message = document.getElementById('message')
    if (form && !message?.value && message === document.activeElement) form.querySelector('input, select, textarea')?.focus()
  }

  submit = (event) => {
    event.preventDefault()
    try {
      this.props.answer(answerOf(event.target, this.props.schema))
    } catch {
      this.setState({ error: t('notJson') })
    }
  }

  render({ schema, answer, decline }, { error }) {
    const kind = kindOf(schema)
    const choices =
      kind === 'boolean'
        ? [
            [true, t('yes')],
            [false, t('no')],
          ]
        : kind === 'choice'
          ? schema.enum.map((choice) => [choice, labelOf(choice)])
          : undefined
    const declineButton = html`<button type="button" class="quiet" onClick=${decline}>${t('decline')}</button>`
    const choiceButton = ([value, name]) =>
      html`<button type="button" class="main" onClick=${() => answer(value)}>${name}</button>`
    if (choices) return html`<div class="row">${choices.map(choiceButton)}${declineButton}</div>`
    return html`<form ref=${this.focus} onSubmit=${this.submit}>${fields(schema, kind)}${error && html`<p class="failed">${error}</p>`}
      <div class="row"><button type="submit" class="main">${t('reply')}</button>${declineButton}</div></form>`
  }
}

function fields(schema, kind) {
  if (kind !== 'object')
    return [
      kind === 'json' && html`<pre tabindex="0">${indentJson(JSON.stringify(schema))}</pre>`,
      field('value', { ...schema, title: t(kind === 'json' ? 'asJson' : 'yourReply') }, kind, true),
    ]
  return Object.entries(schema.properties).map(([name, property]) => {
    const fieldKind = fieldKindOf(property)
    const hint = fieldKind === 'json' && t('jsonBy', { schema: JSON.stringify(property) })
    return field(name, { title: name, ...property }, fieldKind, schema.required?.includes(name), hint)
  })
}

function field(name, schema, kind, required, hint) {
  const { title, description, enum: choices, default: initial } = schema
  const attributes = { name, required }
  const input = {
    text: () => html`<input type="text" autocomplete="off" defaultValue=${initial} ...${lengths(schema)} ...${attributes} />`,
    number: () => html`<input type="number" defaultValue=${initial} ...${range(schema)} ...${outside(schema)} ...${attributes} />`,
    boolean: () => html`<input type="checkbox" name=${name} defaultChecked=${initial} />`,
    choice: () =>
      html`<select ...${attributes}>${!(required && choices.includes(initial)) && html`<option value="">${t(required ? 'choose' : 'noChoice')}</option>`}${choices.map((choice, index) => html`<option value=${index} selected=${choice === initial}>${labelOf(choice)}</option>`)}</select>`,
    json: () => html`<textarea rows="4" spellcheck="false" defaultValue=${initial === undefined ? undefined : JSON.stringify(initial)} ...${attributes}></textarea>`,
  }[kind]()
  const isOptional = !required && kind !== 'boolean' // a checkbox always has a value
  return html`<label class="field" key=${name}><span>${title}${isOptional && html` <small>${t('optional')}</small>`}</span>${input}
    ${[description, hint].map((text) => text && html`<small>${text}</small>`)}</label>`
}

const lengths = ({ minLength, maxLength, pattern }) => ({
  minlength: minLength,
  maxlength: maxLength,
  pattern: pattern && `.*(?:${pattern}).*`, // a schema's pattern may match anywhere in the text, an input's must match all of it
})

/** Return the attributes `min`, `max` and `step` for the numbers that a schema allows: the browser checks them. */
function range({ type, minimum, maximum, exclusiveMinimum, exclusiveMaximum, multipleOf }) {
  const step = multipleOf ?? (type === 'integer' ? 1 : undefined)
  const bound = (included, excluded, sign) => {
    const inside = excluded === undefined ? undefined : excluded + sign * Math.max(Number.MIN_VALUE, Math.abs(excluded) * 2 ** -52)
    const bounds = [included, inside].filter((limit) => limit !== undefined).map((limit) => sign * limit)
    if (!bounds.length) return undefined
    return sign * (step ? Math.ceil(Math.max(...bounds) / step) * step : Math.max(...bounds))
  }
  return { step: step ?? 'any', min: bound(minimum, exclusiveMinimum, 1), max: bound(maximum, exclusiveMaximum, -1) }
}

/** Set the error text of a number at an excluded bound: the browser's own text would name that bound as allowed. */
const outside = ({ exclusiveMinimum, exclusiveMaximum }) => ({
  onInput: ({ target }) => target.setCustomValidity(''),
  onInvalid({ target }) {
    if (target.value === '') return
    if (Number(target.value) <= exclusiveMinimum) target.setCustomValidity(t('moreThan', { n: exclusiveMinimum }))
    if (Number(target.value) >= exclusiveMaximum) target.setCustomValidity(t('lessThan', { n: exclusiveMaximum }))
  },
})

/** Return the answer in a form. Throws a SyntaxError if a field for JSON has other text. */
function answerOf(form, schema) {
  const kind = kindOf(schema)
  if (kind !== 'object') return valueOf(form.elements.value, schema, kind)
  const entries = Object.entries(schema.properties).map(([name, property]) => [
    name,
    valueOf(form.elements[name], property, fieldKindOf(property)),
  ])
  return Object.fromEntries(entries.filter(([, value]) => value !== undefined))
}

function valueOf(input, schema, kind) {
  if (kind === 'boolean') return input.checked
  if (input.value === '' && !input.required) return undefined
  if (kind === 'choice') return schema.enum[Number(input.value)]
  return kind === 'number' ? Number(input.value) : kind === 'json' ? JSON.parse(input.value) : input.value
}
