import { HubError, closedError, errorFromResponse } from './errors.js'
import { makePart } from './file_part.js'

/** @import * as client from './client.js' */
/** @import { Hub } from './hub.js' */

const UPLOAD_RETRY_MS = 1000
const PROGRESS_BYTES = 256 * 1024 // Node.js: the largest step of the progress
const DEFAULT_TYPE = 'application/octet-stream'

/** The files of all sessions, over HTTP. */
export class Files {
  #hub

  /** @param {Hub} hub */
  constructor(hub) {
    this.#hub = hub
  }

  /**
   * @param {string} sessionId
   * @param {client.FileContent} data
   * @param {client.UploadOptions} [options]
   * @returns {Promise<client.StoredFile>}
   */
  async upload(sessionId, data, { name, type, onProgress, signal } = {}) {
    signal?.throwIfAborted()
    const blob = data instanceof Blob ? data : new Blob([/** @type {BlobPart} */ (data)])
    const fileName = name ?? (/** @type {File} */ (data).name || 'file')
    const mediaType = type || blob.type || (typeof data === 'string' ? 'text/plain; charset=utf-8' : DEFAULT_TYPE)
    const path = `/files?${new URLSearchParams({ sessionId, name: fileName })}`
    const { url, headers } = await this.#hub._prepare(path, { 'Content-Type': mediaType })
    signal?.throwIfAborted()
    const options = { method: 'POST', headers, signal }
    if (!onProgress) return this.#readJson(() => globalThis.fetch(url, { ...options, body: blob }))
    if (globalThis.XMLHttpRequest) return this.#readJson(() => sendByXhr(url, headers, blob, onProgress, signal))
    const body = countBytes(blob, onProgress)
    return this.#readJson(() => globalThis.fetch(url, /** @type {any} */ ({ ...options, body, duplex: 'half' })))
  }

  /**
   * Upload the files of a message unless they are stored already; return the parts that name them.
   *
   * After a lost connection, an upload begins again, as a chat is sent again.
   * @param {string} sessionId
   * @param {(client.FileContent | client.StoredFile)[]} files
   * @param {client.UploadOptions['onProgress']} onProgress
   * @param {AbortSignal} signal
   */
  async makeParts(sessionId, files, onProgress, signal) {
    const contents = files.map((file) => (isStored(file) ? undefined : file instanceof Blob ? file : new Blob([/** @type {BlobPart} */ (file)])))
    const total = contents.reduce((sum, blob) => sum + (blob?.size ?? 0), 0)
    let before = 0
    const parts = []
    for (const [index, file] of files.entries()) {
      const done = before
      const report = onProgress && (({ loaded = 0 }) => onProgress({ loaded: done + loaded, total }))
      parts.push(makePart(isStored(file) ? file : await this.#uploadWithRetries(sessionId, file, report, signal)))
      before += contents[index]?.size ?? 0
    }
    return parts
  }

  /**
   * @param {string} sessionId
   * @param {client.FileContent} data
   * @param {client.UploadOptions['onProgress']} onProgress
   * @param {AbortSignal} signal
   */
  async #uploadWithRetries(sessionId, data, onProgress, signal) {
    for (;;) {
      await waitUntilLive(this.#hub, signal)
      try {
        return await this.upload(sessionId, data, { onProgress, signal })
      } catch (error) {
        if (!(error instanceof HubError) || error.code !== 'disconnected') throw error
        await pause(signal)
      }
    }
  }

  /** @param {string} sessionId */
  async list(sessionId) {
    /** @type {client.StoredFile[]} */
    const files = []
    /** @type {{ data: client.StoredFile[], next?: string } | undefined} */
    let page
    do {
      const query = page?.next ? `?${new URLSearchParams({ after: page.next })}` : ''
      page = await this.#readJson(() => this.#hub.fetch(`/sessions/${encodeURIComponent(sessionId)}/files${query}`))
      files.push(...(page?.data ?? []))
    } while (page?.next)
    return files
  }

  /** @param {string} fileId */
  async read(fileId) {
    const response = await this.#send(() => this.#hub.fetch(`/files/${encodeURIComponent(fileId)}`))
    return response.blob()
  }

  /** @param {string} fileId */
  async delete(fileId) {
    await this.#send(() => this.#hub.fetch(`/files/${encodeURIComponent(fileId)}`, { method: 'DELETE' }))
  }

  /**
   * Send a request; return its response, or throw the error that the response describes.
   * @param {() => Promise<Response>} send
   */
  async #send(send) {
    /** @type {Response} */
    let response
    try {
      response = await send()
    } catch (error) {
      if (/** @type {Error} */ (error).name !== 'TypeError') throw error // the signal of the program has aborted it
      const reason = /** @type {any} */ (error).cause?.message ?? /** @type {Error} */ (error).message
      throw new HubError('disconnected', `the hub did not answer (${reason}): try again`)
    }
    if (!response.ok) throw await errorFromResponse(response)
    return response
  }

  /**
   * @param {() => Promise<Response>} send
   * @returns {Promise<any>}
   */
  async #readJson(send) {
    return (await this.#send(send)).json()
  }
}

/**
 * Resolve when the client is live; reject when it is closed, or aborted by the signal.
 * @param {Hub} hub
 * @param {AbortSignal} signal
 * @returns {Promise<void>}
 */
function waitUntilLive(hub, signal) {
  return new Promise((resolve, reject) => {
    const check = () => {
      if (signal.aborted) reject(signal.reason)
      else if (hub.state === 'closed') reject(closedError('hub', hub.closeCode))
      else if (hub.state === 'live') resolve()
      else return
      off()
      signal.removeEventListener('abort', check)
    }
    const off = hub.on('state', check)
    signal.addEventListener('abort', check)
    check()
  })
}

/**
 * Wait before an upload is tried again.
 * @param {AbortSignal} signal
 * @returns {Promise<void>}
 */
function pause(signal) {
  return new Promise((resolve, reject) => {
    signal.addEventListener('abort', () => reject(signal.reason), { once: true })
    setTimeout(resolve, UPLOAD_RETRY_MS)
  })
}

/**
 * @param {any} file
 * @returns {file is client.StoredFile}
 */
const isStored = (file) => typeof file?.fileId === 'string'

/**
 * Upload with the class of browsers: their function `fetch` does not say how much it has sent.
 * @param {string} url
 * @param {Headers} headers
 * @param {Blob} blob
 * @param {NonNullable<client.UploadOptions['onProgress']>} onProgress
 * @param {AbortSignal} [signal]
 * @returns {Promise<Response>}
 */
function sendByXhr(url, headers, blob, onProgress, signal) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest()
    const abort = () => {
      request.abort()
      reject(signal?.reason)
    }
    request.open('POST', url)
    headers.forEach((value, name) => request.setRequestHeader(name, value))
    request.upload.onprogress = ({ loaded }) => onProgress({ loaded, total: blob.size })
    request.onload = () => resolve(new Response(request.responseText, { status: request.status }))
    request.onerror = () => reject(new TypeError('the connection was lost'))
    request.onloadend = () => signal?.removeEventListener('abort', abort)
    signal?.addEventListener('abort', abort)
    request.send(blob)
  })
}

/**
 * Return the bytes as a stream that reports how many were read.
 * @param {Blob} blob
 * @param {NonNullable<client.UploadOptions['onProgress']>} onProgress
 */
function countBytes(blob, onProgress) {
  let loaded = 0
  return new ReadableStream({
    async pull(controller) {
      const bytes = await blob.slice(loaded, loaded + PROGRESS_BYTES).arrayBuffer()
      loaded += bytes.byteLength
      if (!bytes.byteLength) return controller.close()
      controller.enqueue(new Uint8Array(bytes))
      onProgress({ loaded, total: blob.size })
    },
  })
}
