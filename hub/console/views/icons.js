// Icons. Each button with an icon also has a name for screen readers.
import { html } from '../html.js'

const PATHS = {
  menu: 'M4 7h16M4 12h16M4 17h16',
  plus: 'M12 5v14M5 12h14',
  attach: 'M20 11l-8 8a5 5 0 0 1-7-7l8-8a3.300 3.300 0 0 1 4.700 4.700l-8 8a1.600 1.600 0 0 1-2.300-2.300l7-7',
  send: 'M12 19V5M6 11l6-6 6 6',
  down: 'M12 5v14M6 13l6 6 6-6',
  close: 'M6 6l12 12M18 6L6 18',
  share: 'M10 14a4 4 0 0 0 6 0l3-3a4.200 4.200 0 0 0-6-6l-1 1M14 10a4 4 0 0 0-6 0l-3 3a4.200 4.200 0 0 0 6 6l1-1',
  more: 'M5 11.500a1 1 0 1 0 .01 0zM12 11.500a1 1 0 1 0 .01 0zM19 11.500a1 1 0 1 0 .01 0z',
  copy: 'M9 9h10v10H9zM5 15V5h10',
  edit: 'M4 20l1-4L16 5l3 3L8 19z',
  again: 'M19 12a7 7 0 1 1-2-5M19 4v4h-4',
  fork: 'M7 4v16M7 12c6 0 10-1 10-6M14 8l3-3 3 3',
  check: 'M5 13l4 4L19 7',
  tool: 'M14 7a4 4 0 0 1 5-3l-2.500 2.500 1 1L20 5a4 4 0 0 1-5 5L8 18a2 2 0 0 1-3-3l8-7z',
  people:
    'M9 11a3.500 3.500 0 1 0 0-7 3.500 3.500 0 0 0 0 7zM3 20c0-4 2-6 6-6s6 2 6 6M16 4.500a3.500 3.500 0 0 1 0 6M18 14.500c2 1 3 3 3 5.500',
}

export const Icon = ({ name }) =>
  html`<svg class="icon" viewBox="0 0 24 24" aria-hidden="true">${
    name === 'stop'
      ? html`<rect x="6" y="6" width="12" height="12" rx="2.5" fill="currentColor" stroke="none" />`
      : html`<path d=${PATHS[name]} />`
  }</svg>`

/** A button without text: *label* is its name, and its tooltip. */
export const IconButton = ({ icon, label, ...rest }) =>
  html`<button type="button" class="icon-button" aria-label=${label} title=${label} ...${rest}><${Icon} name=${icon} /></button>`
