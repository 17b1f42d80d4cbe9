"""What tables mean: every column once, with its unit and what is usual; templates of tables, and which version a table is."""
