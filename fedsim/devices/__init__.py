"""Who the clients are: tables, speed, heat, batteries, availability; uses settings, network and cost."""
