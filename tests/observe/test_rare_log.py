"""Log lines that strangers can cause are written at a limited rate."""

import structlog

from hub.observe.rare_log import RareLog


def test_a_flood_of_lines_is_one_line_in_each_interval() -> None:
    """The next line says how many were left out. Another object has its own interval."""
    rare = RareLog(60.0)
    with structlog.testing.capture_logs() as lines:
        for now in (0.0, 1.0, 59.9, 60.0, 60.1, 120.0, 500.0):
            rare.warn(now, "refused", at=now)
        RareLog(60.0).warn(500.0, "refused", at=0)
    assert [(line["at"], line.get("left_out")) for line in lines] == [
        (0.0, None),
        (60.0, 2),
        (120.0, 1),
        (500.0, None),
        (0, None),
    ]
