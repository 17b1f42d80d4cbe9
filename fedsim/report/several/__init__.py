"""The page about several runs: what they are called, how they differ, who reached what; uses records, and the page's parts."""
