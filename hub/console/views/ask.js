// A question that an agent asks: buttons where the answers are known, fields where they are not.
import { Component, html } from '../html.js'
import { pretty } from '../json.js'
import { t } from '../words.js'
import { Text } from './text.js'

const label = (value) => (typeof value === 'string' ? value : JSON.stringify(value))

export class Ask extends Component {
  answer = (payload) => this.props.act.reply(this.props.part.id, 'resolved', payload)
  decline = () => this.props.act.reply(this.props.part.id, 'cancelled')

  render({ part, running }) {
    const { ask, reply } = part
    const open = running && !reply
    return html`<section class=${open ? 'ask open' : 'ask'} role="group" aria-label=${t('asks')}>
      <h3>${t('asks')}</h3>
      <${Text} part=${{ text: ask.message ?? ask.reason }} />
      ${open && html`<${Form} schema=${ask.responseSchema} answer=${this.answer} decline=${this.decline} />`}
      ${reply && html`<div class="reply">${reply.status === 'resolved' ? html`${t('answered')}: ${said(reply.payload, ask.responseSchema)}` : t('declined')}</div>`}
      ${!open && !reply && html`<p class="reply">${t('declined')}</p>`}
    </section>`
  }
}

const FLAT = 3 // levels of an answer that are laid out; deeper levels are shown as JSON

function said(value, schema, level = 0) {
  if (typeof value === 'string') return html`<${Text} part=${{ text: value }} />`
  if (typeof value === 'boolean') return html`<b>${t(value ? 'yes' : 'no')}</b>`
  if (typeof value === 'number') return html`<b>${String(value)}</b>`
  if (value === null || value === undefined) return null
  if (level === FLAT) return html`<code>${JSON.stringify(value)}</code>`
  if (Array.isArray(value))
    return html`<ul>${value.map((one, index) => html`<li key=${index}>${said(one, schema?.items, level + 1)}</li>`)}</ul>`
  const rows = Object.entries(value).map(([name, one]) => {
    const property = schema?.properties?.[name]
    return html`<div key=${name}><dt>${property?.title ?? name}</dt><dd>${said(one, property, level + 1)}</dd></div>`
  })
  return html`<dl>${rows}</dl>`
}

/** Tell whether any text answers it, so that it may be written where messages are. */
export const isText = ({ ask }) => kind(ask.responseSchema) === 'text'

const FIELDS = { boolean: 'boolean', string: 'text', number: 'number', integer: 'number' }

/** Return the kind of field for a schema; an object is a form with a simple field for each of its properties. */
const kind = (schema) => (schema?.type === 'object' && schema.properties ? 'object' : simple(schema))

const simple = (schema) => (!schema ? 'text' : Array.isArray(schema.enum) ? 'choice' : (FIELDS[schema.type] ?? 'json'))

class Form extends Component {
  // Who has begun to write goes on writing there; a button with the focus would be pressed by mistake.
  box = (form) => {
    const message = document.getElementById('message')
    if (form && !message?.value && message === document.activeElement) form.querySelector('input, select, textarea')?.focus()
  }

  submit = (event) => {
    event.preventDefault()
    try {
      this.props.answer(read(event.target, this.props.schema))
    } catch {
      this.setState({ wrong: t('notJson') })
    }
  }

  render({ schema, answer, decline }, { wrong }) {
    const what = kind(schema)
    const choices =
      what === 'boolean'
        ? [
            [true, t('yes')],
            [false, t('no')],
          ]
        : what === 'choice'
          ? schema.enum.map((one) => [one, label(one)])
          : undefined
    const no = html`<button type="button" class="quiet" onClick=${decline}>${t('decline')}</button>`
    const pick = ([value, name]) =>
      html`<button type="button" class="main" onClick=${() => answer(value)}>${name}</button>`
    if (choices) return html`<div class="row">${choices.map(pick)}${no}</div>`
    return html`<form ref=${this.box} onSubmit=${this.submit}>${fields(schema, what)}${wrong && html`<p class="failed">${wrong}</p>`}
      <div class="row"><button type="submit" class="main">${t('reply')}</button>${no}</div></form>`
  }
}

function fields(schema, what) {
  if (what !== 'object')
    return [
      what === 'json' && html`<pre tabindex="0">${pretty(JSON.stringify(schema))}</pre>`,
      field('value', { ...schema, title: t(what === 'json' ? 'asJson' : 'yourReply') }, what, true),
    ]
  return Object.entries(schema.properties).map(([name, one]) =>
    field(name, { title: name, ...one }, simple(one), schema.required?.includes(name), simple(one) === 'json' && t('jsonBy', { schema: JSON.stringify(one) })),
  )
}

function field(name, schema, what, required, hint) {
  const { title, description, enum: values, default: given } = schema
  const shared = { name, required }
  const made = {
    text: () => html`<input type="text" autocomplete="off" defaultValue=${given} ...${lengths(schema)} ...${shared} />`,
    number: () => html`<input type="number" defaultValue=${given} ...${range(schema)} ...${outside(schema)} ...${shared} />`,
    boolean: () => html`<input type="checkbox" name=${name} defaultChecked=${given} />`,
    choice: () =>
      html`<select ...${shared}>${!(required && values.includes(given)) && html`<option value="">${t(required ? 'choose' : 'noChoice')}</option>`}${values.map((one, index) => html`<option value=${index} selected=${one === given}>${label(one)}</option>`)}</select>`,
    json: () => html`<textarea rows="4" spellcheck="false" defaultValue=${given === undefined ? undefined : JSON.stringify(given)} ...${shared}></textarea>`,
  }[what]()
  const optional = !required && what !== 'boolean' // a box is either checked or not
  return html`<label class="field" key=${name}><span>${title}${optional && html` <small>${t('optional')}</small>`}</span>${made}
    ${[description, hint].map((text) => text && html`<small>${text}</small>`)}</label>`
}

const lengths = ({ minLength, maxLength, pattern }) => ({
  minlength: minLength,
  maxlength: maxLength,
  pattern: pattern && `.*(?:${pattern}).*`, // the pattern of a schema may match anywhere in the text
})

/** Return the numbers that a schema allows, for the browser to check: from `min` to `max`, in steps. */
function range({ type, minimum, maximum, exclusiveMinimum, exclusiveMaximum, multipleOf }) {
  const step = multipleOf ?? (type === 'integer' ? 1 : undefined)
  const bound = (included, excluded, sign) => {
    const inside = excluded === undefined ? undefined : excluded + sign * Math.max(Number.MIN_VALUE, Math.abs(excluded) * 2 ** -52)
    const bounds = [included, inside].filter((one) => one !== undefined).map((one) => sign * one)
    if (!bounds.length) return undefined
    return sign * (step ? Math.ceil(Math.max(...bounds) / step) * step : Math.max(...bounds))
  }
  return { step: step ?? 'any', min: bound(minimum, exclusiveMinimum, 1), max: bound(maximum, exclusiveMaximum, -1) }
}

/** Say of a number at an excluded bound what is wanted: the browser would call the bound itself allowed. */
const outside = ({ exclusiveMinimum, exclusiveMaximum }) => ({
  onInput: ({ target }) => target.setCustomValidity(''),
  onInvalid({ target }) {
    if (target.value === '') return
    if (Number(target.value) <= exclusiveMinimum) target.setCustomValidity(t('moreThan', { n: exclusiveMinimum }))
    if (Number(target.value) >= exclusiveMaximum) target.setCustomValidity(t('lessThan', { n: exclusiveMaximum }))
  },
})

/** The answer in a form, as its schema wants it; raises where JSON is none. */
function read(form, schema) {
  const what = kind(schema)
  if (what !== 'object') return value(form.elements.value, schema, what)
  const given = Object.entries(schema.properties).map(([name, one]) => [
    name,
    value(form.elements[name], one, simple(one)),
  ])
  return Object.fromEntries(given.filter(([, one]) => one !== undefined))
}

function value(input, schema, what) {
  if (what === 'boolean') return input.checked
  if (input.value === '' && !input.required) return undefined
  if (what === 'choice') return schema.enum[Number(input.value)]
  return what === 'number' ? Number(input.value) : what === 'json' ? JSON.parse(input.value) : input.value
}
