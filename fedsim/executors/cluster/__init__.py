"""Several machines as one: what each of them is, and the files that a run sends to them."""
