// Test uploads, in Node.js and in a browser: checkUploads(connected hub, size) returns which checks hold.
export async function checkUploads(hub, size) {
  const checks = {}
  const session = hub.session('s1', { agent: 'reader' })
  const bytes = new Uint8Array(size).fill(65)
  const progress = []
  const onProgress = ({ loaded, total }) => progress.push([loaded, total])

  const stored = await session.upload(new File([bytes], 'a.bin', { type: 'image/png' }), { onProgress })
  checks['a File has a name and a type'] = stored.name === 'a.bin' && stored.type === 'image/png' && stored.size === size
  checks['progress grows to the end'] = progress.length > 0 && progress.every(([loaded, total], index) =>
    total === size && loaded <= total && (!index || loaded >= progress[index - 1][0])) && progress.at(-1)[0] === size
  checks['the bytes come back'] = (await session.readFile(stored.fileId)).size === size

  const controller = new AbortController()
  const aborted = session.upload(bytes, { onProgress: () => controller.abort(), signal: controller.signal })
  checks['an aborted upload rejects'] = await aborted.then(() => undefined, (error) => error.name) === 'AbortError'
  const early = session.upload(bytes, { signal: AbortSignal.abort() })
  checks['an upload may be aborted before it'] = await early.then(() => undefined, (error) => error.name) === 'AbortError'
  const chatController = new AbortController()
  const chat = session.chat('never sent', { files: [bytes], signal: chatController.signal, onProgress: () => chatController.abort() })
  checks['an aborted chat rejects'] = await chat.text().then(() => undefined, (error) => error.name) === 'AbortError'
  checks['and is not accepted'] = await chat.accepted.then(() => undefined, (error) => error.name) === 'AbortError'

  progress.length = 0
  const text = await session.ask('files', { files: ['text', stored, bytes], onProgress })
  checks['a chat has files of all kinds'] = text === 'document file image a.bin document file '
  checks['progress counts all files'] = progress.at(-1)[0] === size + 4 && progress.at(-1)[1] === size + 4
  checks['only complete files are stored'] = (await session.listFiles()).every((file) => file.size === size || file.size === 4)

  await session.deleteFile(stored.fileId)
  checks['a file is deleted'] = await session.readFile(stored.fileId).then(() => undefined, (error) => error.code) === 'unknown_file'
  const refused = await session.upload(new Uint8Array(2 * size), { onProgress }).then(() => undefined, (error) => error)
  checks['a refused upload has the reason'] = refused?.code === 'file_too_large' || refused?.code
  const other = hub.session('s1', { agent: 'reader' })
  const closed = other.chat('never sent', { files: [bytes] })
  other.close()
  checks['a closed session aborts its uploads'] = await closed.text().then(() => undefined, (error) => error.code) === 'closed'
  checks['the next chat works'] = (await session.ask('again')) === ''
  hub.close()
  return checks
}
