/** The types of the agent for clients of AG-UI. docs/api.md shows how to use it. */

import { HttpAgent, type AgentSubscriber, type HttpAgentConfig, type RunAgentParameters, type RunAgentResult } from '@ag-ui/client'

export interface HubbubAgentConfig extends HttpAgentConfig {
  /**
   * Whether connectAgent() goes on with each later run of the session, also those of other clients. If it is `false`,
   * the connection ends with the run that is going on. `true` by default.
   */
  live?: boolean
}

/** An agent of a hub. connectAgent() shows the session as it is: its messages, the run that is going on, and later runs. */
export class HubbubAgent extends HttpAgent {
  constructor(config: HubbubAgentConfig)
  live: boolean
  /**
   * Show the session. The promise resolves as soon as the messages are there and no run is going on. With `live`, the
   * agent stays connected after that, and shows later runs.
   */
  connectAgent(parameters?: RunAgentParameters, subscriber?: AgentSubscriber): Promise<RunAgentResult>
  /** Stop the answer at once, also one that another client has started. */
  abortRun(): void
}
