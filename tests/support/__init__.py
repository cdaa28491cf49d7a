"""What tests share: a hub and its clients, processes, networks that break, browsers and terminals."""
