"""The agents folder as a package: `hubbub_agents.NAME` is the module of NAME.py, whatever the folder is called.

So what an agent defines can be imported by its name: by a child process, which learns of the folder from the
environment, and by the tests of a project. The agents folder and the current folder stand at the end of `sys.path`,
where they hide nothing: what lies in them can be imported, too.
"""

import os
import sys

# A hub sets the first for its child processes; the second is a setting of the hub.
__path__ = [os.path.abspath(os.environ.get("_HUBBUB_AGENTS") or os.environ.get("HUBBUB_AGENTS") or "agents")]
sys.path += [folder for folder in (*__path__, os.getcwd()) if folder not in sys.path]
