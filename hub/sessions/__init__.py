"""The sessions in memory: their chats, their runs, and their events on the way to the log."""
