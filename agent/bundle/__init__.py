"""`katanode bundle`: what a person who helps from afar needs to know of a node, in one archive and without secrets."""
