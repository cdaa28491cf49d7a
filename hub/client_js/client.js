// The client of a Hubbub hub, for browsers and Node.js: docs/clients.md shows how to use it, client.d.ts has its types.
// The hub serves this module and those it imports as one file, `/client.js`. Names that begin with `_` are internal.

export { HubError } from './errors.js'
export { connect } from './hub.js'
