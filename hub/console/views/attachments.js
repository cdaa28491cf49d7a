// The files of a message: images, and links to the others. Also the files that are chosen for the next message.
import { attachmentsOf, fileAddress } from '../files.js'
import { Component, html } from '../html.js'
import { t } from '../words.js'
import { IconButton } from './icons.js'

const SHOWN_TYPES = new Set(['image/png', 'image/jpeg', 'image/gif', 'image/webp']) // files of all other types are links

export const attachments = (parts) =>
  attachmentsOf(parts).map(({ label, file }, index) =>
    file
      ? html`<${FileLink} key=${index} file=${file} />`
      : html`<span class="tag" key=${index}>${t('attachment')}: ${label}</span>`,
  )

class FileLink extends Component {
  state = { failed: false }

  render({ file }, { failed }) {
    const { fileId, name, type } = file
    const address = fileAddress(fileId)
    if (failed || !SHOWN_TYPES.has(type.toLowerCase()))
      return html`<a class="tag file" href=${address} download=${name}>${t('attachment')}: ${name}</a>`
    return html`<a class="picture" href=${address} target="_blank" rel="noopener noreferrer">
      <img src=${address} alt=${name} loading="lazy" onError=${() => this.setState({ failed: true })} />
    </a>`
  }
}

export const ChosenFiles = ({ files, act }) =>
  files.length > 0 &&
  html`<ul class="files">${files.map(
    (file, index) => html`<li class="tag" key=${index}><span>${file.name}</span>
      <${IconButton} icon="close" label=${t('detach', { name: file.name })} onClick=${() => act.detach(index)} /></li>`,
  )}</ul>`

/** The button that opens the browser's dialog for files. */
export class AttachButton extends Component {
  input = { current: undefined }

  choose = ({ target }) => {
    this.props.act.attach([...target.files])
    target.value = '' // the same file may be chosen again
  }

  render() {
    return html`<input type="file" multiple hidden ref=${this.input} onChange=${this.choose} />
      <${IconButton} icon="attach" label=${t('attach')} onClick=${() => this.input.current.click()} />`
  }
}
