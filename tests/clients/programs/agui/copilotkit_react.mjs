// The page of docs/copilotkit.md, with CopilotKit's components.
//
// Of its 560 MB of packages, the page does not need the largest ones: diagrams, the inspector, and a second version of
// the icons.
//
// /// script
// dependencies = [
//   "@copilotkit/react-core@1.74.0", "react@19.3.1", "react-dom@19.3.1", "zod@4.6.7", "esbuild@0.28.2",
// ]
// [overrides]
// "@copilotkit/web-inspector" = "file:./nothing"
// mermaid = "file:./nothing"
// lucide-react = "0.542.0"
// ///

import * as page from './page.mjs'
import { run } from './scenario.mjs'

async function bundle() {
  return await page.bundle()
}

run({ bundle })
