// Checked by `make lint-js`, not run: the modules of the client export the values that client.d.ts declares.
import type * as client from './client.js'
import { HubError } from './errors.js'
import { connect } from './hub.js'

export const values: typeof client = { connect, HubError }
