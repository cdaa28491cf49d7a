"""`python -m support.hub_on_disk serve ...`: a hub whose disk operations are recorded, and fail as a test says.

HUBBUB_TEST_DISK names the folder of the journal and of the control block. Checkpoints are more frequent than in a real
hub, so that a short test has many.
"""

import os
from pathlib import Path

from support import vfs

from hub.__main__ import main
from hub.storage.sqlite import database

if __name__ == "__main__":
    folder = Path(os.environ["HUBBUB_TEST_DISK"])
    vfs.install(folder / "journal", folder / "control")
    setattr(database, "CHECKPOINT_PAGES", 200)
    main()
