"""Operations, memory, traffic and joules of a model; uses the ground floor, and no torch."""
