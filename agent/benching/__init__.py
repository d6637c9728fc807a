"""`katanode bench`: what a sandbox costs on this node, for each runtime handler: time, memory, and how many fit."""
