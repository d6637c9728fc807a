"""`katanode sandboxes`: the Kata sandboxes of this node as a table, one of them in detail, and the debug switch."""
