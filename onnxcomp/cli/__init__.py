"""The command line: one thin file for each verb. Parse, call, print."""
