"""The playground's servers with what only tests need: failures, repetitions, malformed events, and records of calls."""
