"""What all programs in Python share: PROGRAM URL FUNCTION [ARGUMENT...] prints the result of the function as JSON."""

import asyncio
import inspect
import json
import sys

URL = sys.argv[1]
ARGUMENTS = sys.argv[3:]


def run(functions):
    """Call the function that the command line names."""
    result = functions[sys.argv[2]]()
    if inspect.isawaitable(result):
        result = asyncio.run(result)
    print("\n" + json.dumps(result))
