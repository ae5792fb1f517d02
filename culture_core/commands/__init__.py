"""The command line, a module a command.

A command's module has `add_arguments(parser)`, and `run(options)`, which returns what it found as a
dictionary that JSON can hold; `describe(result)` says the same to people. Only the module of the command that
was asked for is imported, so that help is instant.
"""

COMMANDS = {
    "fetch-encoder": "get multilingual-e5-small, the text encoder of the examples",
}
"""What each command does; its module has the command's name, with underscores."""
