"""The parts of a sweep: its points, how their folders stand, running one here, running several in processes of their own."""
