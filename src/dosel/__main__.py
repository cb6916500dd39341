"""`python -m dosel`: the command line where the package is on the path but not installed, as in the images."""

from dosel.cli import main

main()
