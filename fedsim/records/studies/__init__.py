"""What a study says of its runs: what is kept of each, marks that were stated beforehand, tables and pages."""
