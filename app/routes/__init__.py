"""The calls, by what they are about. Each module makes its router from the use cases it is given."""
