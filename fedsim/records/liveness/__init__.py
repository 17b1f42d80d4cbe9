"""Whether somebody is at work on a run: the lock on its folder, who holds it, and what is known of another host's run."""
