"""Many clients at once through one frozen model: their visits, data order, optimisers and swapped layers."""
