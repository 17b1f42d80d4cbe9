"""Links that many use: transfers on them, and max-min fair rates where links lie one behind the other."""
