"""Running sandboxes: finding their processes, and the canary that proves a handler."""
