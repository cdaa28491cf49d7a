"""The agents folder as a package: `hubbub_agents.NAME` is the module of NAME.py, whatever the name of the folder.

Child processes of an agent and the tests of a project import agents under this name; the environment names the folder.
The agents folder and the current folder are added at the end of `sys.path`, so their modules can be imported too, and
hide no other module.
"""

import os
import sys

# The hub sets the first variable for its child processes; the second one is a setting of the hub.
__path__ = [os.path.abspath(os.environ.get("_HUBBUB_AGENTS") or os.environ.get("HUBBUB_AGENTS") or "agents")]
sys.path += [folder for folder in (*__path__, os.getcwd()) if folder not in sys.path]
