"""Operations, memory, traffic and joules of a model; uses settings, and no torch."""
